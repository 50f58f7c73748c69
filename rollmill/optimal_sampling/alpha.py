"""Public names of the weight alpha: see `rollmill.jobs.optimal_sampling.alpha`."""

from rollmill.jobs.optimal_sampling.alpha import METHODS, compute_alpha

__all__ = ["METHODS", "compute_alpha"]
