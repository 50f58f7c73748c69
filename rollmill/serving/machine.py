"""How vLLM runs on this machine: with an accelerator or without."""

from __future__ import annotations

import os
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/gpus")


def has_accelerator() -> bool:
    """Whether the machine has an NVIDIA or AMD device."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()


def accelerators() -> list[str]:
    """Names of the NVIDIA devices, as the driver tells them; those of others have none here."""
    told = [path.read_text(errors="replace") for path in sorted(_DRIVER.glob("*/information"))]
    named = [line.partition(":")[2].strip() for text in told for line in text.splitlines() if line.startswith("Model:")]
    return named or (["a GPU"] if has_accelerator() else [])


def cpu_arguments() -> tuple[list[str], dict[str, str]]:
    """Arguments and environment for vLLM where there is no accelerator: all cores, no compilation at start.

    Without chunked prefill: vLLM 0.32 on the CPU ends with "CPU Generator does not use offset" when a request with a
    seed is prefilled in more than one piece.
    """
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    environment = {"VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_CPU_KVCACHE_SPACE": "2"}
    return ["--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill"], environment


def machine_arguments(model_path: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment for vLLM on this machine; what the environment says already stays."""
    arguments, environment = ([], {}) if has_accelerator() else cpu_arguments()
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"} | environment
    for name in list(environment):
        environment[name] = os.environ.get(name, environment[name])
    if Path(model_path).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    return arguments, environment
