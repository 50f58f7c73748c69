"""Python interface of q* sampling: the geometric mixture of two language models, weighted at every token.

Hands on names of `rollmill.jobs.optimal_sampling`. Importing this package does not import torch.
"""

from typing import TYPE_CHECKING

from rollmill.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from rollmill.optimal_sampling.alpha import compute_alpha
    from rollmill.optimal_sampling.mixture import log_mixture, token_diagnostics
    from rollmill.optimal_sampling.model import OptimalSamplingModel, create_optimal_sampling_model

__all__ = [
    "OptimalSamplingModel",
    "compute_alpha",
    "create_optimal_sampling_model",
    "log_mixture",
    "token_diagnostics",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "compute_alpha": "alpha",
        "log_mixture": "mixture",
        "token_diagnostics": "mixture",
        "OptimalSamplingModel": "model",
        "create_optimal_sampling_model": "model",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
