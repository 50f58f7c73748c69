"""Rejection sampling: N rollouts for each problem, verified; results, statistics and training data."""
