"""Environments of the sampling processes of a call: one GPU for each process."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rollmill.inference.devices import choose_device, listed_gpus, wants_cpu
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling

_ANY_GPU = ("auto", "cuda")


def environments(parameters: OptimalSampling, environ: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Return the variables to set for each process: one process per GPU, or --gpu_workers processes.

    More processes than GPUs share the GPUs. With a device that is named, such as `cpu` or `cuda:1`, all processes use
    it. Raises `InputError` where torch cannot use the machine's GPU, as the processes would; see `choose_device`.
    """
    if parameters.device not in _ANY_GPU:
        return [{} for _ in range(parameters.gpu_workers or 1)]
    variables = os.environ if environ is None else environ
    gpus = _gpus(variables)
    if not gpus and parameters.backend == "transformers":
        choose_device(parameters.device, environment=variables, runs=False)
    count = parameters.gpu_workers or len(gpus) or 1
    return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {} for number in range(count)]


def _gpus(environ: Mapping[str, str]) -> list[str]:
    """Return the names in `CUDA_VISIBLE_DEVICES` of the GPUs that are visible."""
    if wants_cpu(environ):
        return []
    import torch

    count = torch.cuda.device_count()
    return (listed_gpus(environ) or [str(number) for number in range(count)])[:count]
