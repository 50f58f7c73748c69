"""One file per job that a user runs: `python -m flows.<name>`."""
