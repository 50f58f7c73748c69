"""The weight of each token."""

from rollmill.jobs.optimal_sampling.alpha import METHODS, compute_alpha

__all__ = ["METHODS", "compute_alpha"]
