"""Environments: worlds in which agents act, turn by turn, until an episode is over."""
