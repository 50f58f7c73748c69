"""Two models, and answers drawn from their mixture."""

from rollmill.jobs.optimal_sampling.model import GenerationOutput, OptimalSamplingModel, create_optimal_sampling_model

__all__ = ["GenerationOutput", "OptimalSamplingModel", "create_optimal_sampling_model"]
