"""Both models of a mixture in one vLLM. What runs in vLLM's own environment: torch, vLLM and the standard library."""
