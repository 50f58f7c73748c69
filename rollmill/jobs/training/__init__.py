"""LoRA training of a model on its accepted rollouts: from rows to label masks to an adapter, resumable."""
