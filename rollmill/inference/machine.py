"""Arguments and environment of vLLM for this machine, with a GPU or without."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollmill.inference.devices import nvidia_files, wants_cpu


def has_accelerator(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether servers use an NVIDIA GPU: this machine has one, and the environment does not ask for the CPU."""
    return bool(nvidia_files()) and not wants_cpu(environment)


def cpu_arguments() -> tuple[list[str], dict[str, str]]:
    """Return arguments and environment for vLLM on the CPU: all cores, no compilation at start.

    Chunked prefill is off: with it vLLM 0.32 on the CPU exits with "CPU Generator does not use offset" when a request
    with a seed is prefilled in several chunks.
    """
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    environment = {"VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_CPU_KVCACHE_SPACE": "2"}
    return ["--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill"], environment


def gpu_arguments() -> tuple[list[str], dict[str, str]]:
    """Return arguments and environment for vLLM on a GPU.

    FlashInfer's sampler, vLLM's default, is compiled with nvcc at its first use. Without nvcc the server exits at its
    start (https://github.com/vllm-project/vllm/issues/49497), so that vLLM's own sampler is used.
    """
    return [], {"VLLM_USE_FLASHINFER_SAMPLER": "0"}


def machine_arguments(model_path: str, *, on_gpu: bool | None = None) -> tuple[list[str], dict[str, str]]:
    """Return arguments and environment for vLLM on this machine; variables that are set already are not replaced.

    `on_gpu` None: on a GPU if the machine has one.
    """
    arguments, environment = gpu_arguments() if (has_accelerator() if on_gpu is None else on_gpu) else cpu_arguments()
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"} | environment
    for name in list(environment):
        environment[name] = os.environ.get(name, environment[name])
    if Path(model_path).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    return arguments, environment


def length_arguments(arguments: Sequence[str]) -> list[str]:
    """Return arguments with which vLLM reduces the context length to what fits into memory.

    A `--max-model-len` in `arguments` comes later and takes precedence. One in vLLM's `--config` file would not, since
    the command line overrides it: with such a file this returns nothing.
    """
    if any(argument.partition("=")[0] == "--config" for argument in arguments):
        return []
    return ["--max-model-len", "auto"]


def flag_value(arguments: Sequence[str], name: str) -> str | None:
    """Return the value of a flag in vLLM's arguments; of repeated ones the last, None where it is missing."""
    value = None
    for number, argument in enumerate(arguments):
        flag, equals, text = argument.partition("=")
        if flag.replace("_", "-") == name:
            value = text if equals else next(iter(arguments[number + 1 :]), None)
    return value
