"""Environments: agents act in them, turn by turn, until an episode is over."""
