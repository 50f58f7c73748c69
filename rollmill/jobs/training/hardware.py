"""What a run trains on, and the memory it takes.

A GPU, unless the CPU is asked for or there is none; never the CPU in a GPU's place.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import orjson

from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write_json
from rollmill.inference.devices import choose_device, describe_use
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.work import TrainingWork

_STATUS = Path("/proc/self/status")


def take_device(work: TrainingWork) -> None:
    """Choose the device, before anything is read or loaded, and write down what it is.

    Raises `InputError` where there are fewer GPUs than asked for, and as `choose_device` does. Imports torch.
    """
    import torch

    parameters = work.parameters
    first = os.environ.get("RANK", "0") == "0"
    # Of several processes one tries the GPU: each that does takes memory of the first.
    device = "cpu" if parameters.num_gpus == 0 else choose_device(parameters.device, runs=first)
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    if parameters.num_gpus > max(1, gpus):
        raise InputError(f"--num_gpus {parameters.num_gpus}: this machine shows {gpus}")
    if first:
        used = describe_use(device, weights_dtype(parameters), parameters.processes)
        atomic_write_json(work.device, used)


def on_cpu(parameters: TrainLora) -> bool:
    """Return whether this process trains on the CPU, once `take_device` has chosen. Imports torch."""
    import torch

    return parameters.num_gpus == 0 or not torch.cuda.is_available()


def has_bf16(parameters: TrainLora) -> bool:
    """Return whether it computes in bfloat16. Imports torch."""
    import torch

    return not on_cpu(parameters) and torch.cuda.is_bf16_supported()


def weights_dtype(parameters: TrainLora) -> str:
    """Return the base's: bfloat16 under an adapter on a GPU that has it, else float32."""
    return "bfloat16" if parameters.use_lora and has_bf16(parameters) else "float32"


def used_device(work: TrainingWork) -> dict[str, Any] | None:
    """Return what `take_device` has written; None where it has not come to that."""
    try:
        used: dict[str, Any] = orjson.loads(work.device.read_bytes())
    except FileNotFoundError:
        return None
    return used


def peak_mb() -> float | None:
    """Return the most memory that this process has had, in MB; None where nobody says.

    Of the GPU where torch uses one, else the greatest resident memory.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 1e6)
    if not _STATUS.exists():
        return None
    lines = (line.split() for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return next((int(line[1]) * 1024 / 1e6 for line in lines), None)
