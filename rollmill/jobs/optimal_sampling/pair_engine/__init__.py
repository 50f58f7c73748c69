"""Both models of a mixture in one vLLM. Runs in vLLM's own environment: imports torch, vLLM, the standard library."""
