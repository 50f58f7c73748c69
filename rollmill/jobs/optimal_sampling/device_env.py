"""Where the processes of a call draw: each on a GPU of its own, where there are some."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rollmill.inference.devices import choose_device, listed_gpus, wants_cpu
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling

_ANY_GPU = ("auto", "cuda")


def environments(parameters: OptimalSampling, environ: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """What is laid over each process's environment; one process for each GPU, or --workers of them.

    More processes than GPUs share these. With a device that is named, such as `cpu` or `cuda:1`, all are on it. Raises
    `InputError` where a GPU is there that torch cannot use, as the processes would; see `choose_device`.
    """
    if parameters.device not in _ANY_GPU:
        return [{} for _ in range(parameters.workers or 1)]
    given = os.environ if environ is None else environ
    gpus = _gpus(given)
    if not gpus and parameters.backend == "transformers":
        choose_device(parameters.device, environment=given, runs=False)
    count = parameters.workers or len(gpus) or 1
    return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {} for number in range(count)]


def _gpus(environ: Mapping[str, str]) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` calls those that are visible."""
    if wants_cpu(environ):
        return []
    import torch

    count = torch.cuda.device_count()
    return (listed_gpus(environ) or [str(number) for number in range(count)])[:count]
