"""Coding agents: mini-swe-agent plays in a sandbox with a model behind this project's endpoints."""
