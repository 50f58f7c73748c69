"""Jobs: what users run. Imports nothing: parts of it are loaded in vLLM's own environment."""
