"""Coding agents: mini-swe-agent in a sandbox, with a model behind an OpenAI-compatible endpoint."""
