"""Sampling from the geometric mixture of two language models, with the weight chosen at every token.

Importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rollmill.optimal_sampling.alpha import compute_alpha
    from rollmill.optimal_sampling.model import OptimalSamplingModel, create_optimal_sampling_model

__all__ = ["OptimalSamplingModel", "compute_alpha", "create_optimal_sampling_model"]

_HOMES = {"compute_alpha": "alpha", "OptimalSamplingModel": "model", "create_optimal_sampling_model": "model"}


def __getattr__(name: str) -> Any:
    """PEP 562: the module of a public name is imported when the name is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
