"""Rollouts: the engine that makes them, the journal that keeps them, the run that owns them."""
