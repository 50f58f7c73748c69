"""Public names of the mixture of two models: see `rollmill.jobs.optimal_sampling.model`."""

from rollmill.jobs.optimal_sampling.model import GenerationOutput, OptimalSamplingModel, create_optimal_sampling_model

__all__ = ["GenerationOutput", "OptimalSamplingModel", "create_optimal_sampling_model"]
