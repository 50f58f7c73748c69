"""Rejection sampling: from the rollouts of a run to its results, statistics and warnings."""
