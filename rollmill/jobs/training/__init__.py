"""LoRA training of a model on its accepted rollouts: rows, loss masks, a resumable run, an adapter."""
