"""Optimal sampling: training data drawn from q*. Imports nothing: parts of it are loaded in vLLM's own environment."""
