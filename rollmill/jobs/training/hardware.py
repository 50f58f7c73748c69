"""Chooses the device of a run, and measures its memory.

A GPU, unless the CPU is requested or there is no GPU. A GPU that cannot be used is an error, never a reason to use the
CPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from rollmill.files.atomic import atomic_write_json
from rollmill.inference.devices import KIND, choose_device, describe_use
from rollmill.inference.gpu_reservation import free_gpus, reserve_gpus
from rollmill.inference.placement import Placement, place_training
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.work import TrainingWork

_STATUS = Path("/proc/self/status")


def training_placement(parameters: TrainLora, environment: Mapping[str, str] | None = None) -> Placement:
    """Return the GPUs of a training on this machine. Raises `InputError` as `place_training` does."""
    return place_training(free_gpus(_variables(parameters, environment)), parameters.num_gpus, parameters.device)


@contextmanager
def reserved_for_training(parameters: TrainLora, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Reserve the GPUs of a training for the block; yield the variables that show them to its worker.

    Raises `InputError` as `training_placement` and `reserve_gpus` do.
    """
    gpus = free_gpus(_variables(parameters, environment))
    placement = place_training(gpus, parameters.num_gpus, parameters.device)
    used = [gpu for gpu in gpus.gpus if gpu.name in placement.processes[0]]
    with reserve_gpus(used, environment=environment):
        yield placement.environments[0]


def _variables(parameters: TrainLora, environment: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment; `--device cuda` counts more than `ROLLMILL_KIND`."""
    variables = dict(os.environ if environment is None else environment)
    if parameters.device == "cuda":
        variables.pop(KIND, None)
    return variables


def take_device(work: TrainingWork) -> None:
    """Choose the device, before anything is read or loaded, and write it to `work.device`.

    Raises `InputError` as `choose_device` does. Imports torch.
    """
    parameters = work.parameters
    first = os.environ.get("RANK", "0") == "0"
    # Only one of several processes tries the GPU: each that does allocates memory on the first one.
    device = "cpu" if parameters.num_gpus == 0 else choose_device(parameters.device, runs=first)
    if first:
        used = describe_use(device, weights_dtype(parameters), parameters.processes)
        atomic_write_json(work.device, used)


def on_cpu(parameters: TrainLora) -> bool:
    """Return whether this process trains on the CPU, once `take_device` has chosen. Imports torch."""
    import torch

    return parameters.num_gpus == 0 or not torch.cuda.is_available()


def has_bf16(parameters: TrainLora) -> bool:
    """Return whether the run computes in bfloat16. Imports torch."""
    import torch

    return not on_cpu(parameters) and torch.cuda.is_bf16_supported()


def weights_dtype(parameters: TrainLora) -> str:
    """Return the dtype of the base's weights: bfloat16 under an adapter on a GPU that supports it, else float32."""
    return "bfloat16" if parameters.use_lora and has_bf16(parameters) else "float32"


def used_device(work: TrainingWork) -> dict[str, Any] | None:
    """Return the device that `take_device` has written; None where it has not been called yet."""
    try:
        used: dict[str, Any] = orjson.loads(work.device.read_bytes())
    except FileNotFoundError:
        return None
    return used


def peak_mb() -> float | None:
    """Return the peak memory of this process in MB: of the GPU where torch uses one, else resident memory.

    Returns None where the system does not report it.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 1e6)
    if not _STATUS.exists():
        return None
    lines = (line.split() for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return next((int(line[1]) * 1024 / 1e6 for line in lines), None)
