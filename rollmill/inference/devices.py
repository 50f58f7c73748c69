"""NVIDIA's driver on this machine, and checks that torch can use its GPUs. Imports torch only in those checks.

`rollmill.inference.visible_gpus` counts and names the GPUs.

`python -m rollmill.inference.devices` prints the result for the torch of another environment, as JSON. So this module
imports only the standard library, and `rollmill.errors`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rollmill.errors import InputError

DEV = Path("/dev")
DRIVER = Path("/proc/driver/nvidia")
WSL = Path("/usr/lib/wsl/lib")
"""Folder of the Windows driver's programs and libraries in WSL2."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
KIND = "ROLLMILL_KIND"
"""Environment variable: with `cpu`, `make setup` and everything else use the CPU."""
SHARE = "ROLLMILL_SHARE_GPUS"
"""Environment variable: with `1`, jobs may use GPUs that other jobs use."""
OLDEST_DRIVERS = {"11": 450, "12": 525, "13": 580}
"""The oldest driver for each CUDA release (https://docs.nvidia.com/deploy/cuda-compatibility)."""
ASK_FOR_CPU = f"ask for the CPU: --device cpu where the flow has it, an empty {VISIBLE}, or {KIND}=cpu"
AMD = (
    "the AMD GPU here (/dev/kfd) is not used: nothing that `make setup` installs runs on it: serve the model "
    f"elsewhere, with vLLM's build for ROCm, and give its address as --base_url; or {ASK_FOR_CPU}"
)
DEVICE_FILE = re.compile(r"nvidia(\d+)")
_NO_DEVICES = ("nodevfiles", "none", "void")
WSL_FILE = "dxg"
PATIENCE_S = 20.0
"""Seconds for nvidia-smi: without persistence mode it initialises every GPU first, about a second each."""


class TorchVerdict(NamedTuple):
    """An environment's torch, with the reason why it cannot use the GPU, if it cannot."""

    version: str
    cuda: str | None
    """The CUDA release that torch is built for; None for a build without CUDA."""
    reason: str | None
    """torch's message why it cannot use the GPU; None where it can."""


def nvidia_files() -> list[str]:
    """Return the device files of NVIDIA GPUs, including WSL2's; empty on a machine without the driver.

    WSL2 has one device file for GPUs of any vendor: it counts only where files of NVIDIA's driver exist, too.
    """
    names = sorted(path.name for path in DEV.iterdir()) if DEV.is_dir() else []
    if WSL_FILE in names and not (WSL / "libcuda.so.1").exists() and _find_nvidia_smi() is None:
        names.remove(WSL_FILE)
    return [str(DEV / name) for name in names if name in ("nvidiactl", WSL_FILE) or DEVICE_FILE.fullmatch(name)]


def has_only_amd() -> bool:
    """Return whether the machine has an AMD GPU, and no NVIDIA GPU."""
    return (DEV / "kfd").exists() and not nvidia_files()


def wants_cpu(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether the environment asks for the CPU: by `ROLLMILL_KIND`, or by hiding all GPUs.

    `CUDA_VISIBLE_DEVICES` hides them if it is empty, negative, or a word that schedulers and containers use for none.
    """
    variables = os.environ if environment is None else environment
    shown = variables.get(VISIBLE)
    if variables.get(KIND) == "cpu" or shown is None:
        return variables.get(KIND) == "cpu"
    return not shown.strip(" ,") or shown.strip().startswith("-") or shown.strip().lower() in _NO_DEVICES


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver, from /proc or nvidia-smi; None where neither has it."""
    try:
        text = (DRIVER / "version").read_text(errors="replace")
    except OSError:
        text = "\n".join(ask_nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader"))
    match = re.search(r"\b\d{3,}\.\d+(?:\.\d+)?\b", text)
    return match[0] if match else None


def needed_driver(cuda: str | None) -> int | None:
    """Return the oldest driver for a CUDA release such as `13.0`; None for an unknown release."""
    return OLDEST_DRIVERS.get(cuda.partition(".")[0]) if cuda else None


def is_driver_too_old(version: str | None, cuda: str | None) -> bool:
    """Return whether a driver is known to be older than a CUDA release needs."""
    needed = needed_driver(cuda)
    return needed is not None and version is not None and int(version.partition(".")[0]) < needed


def unreadable_file() -> str | None:
    """Return the first device file that this user may not open; None where there is none."""
    return next((path for path in nvidia_files() if not os.access(path, os.R_OK | os.W_OK)), None)


def ask_torch(device: str = "cuda", *, runs: bool = True) -> TorchVerdict:
    """Check whether this process's torch can use a GPU; with `runs`, by running a kernel on it.

    `torch.cuda.is_available` is also true for a GPU that is too old for any kernel of the build.
    """
    import torch

    reason = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if not torch.cuda.is_available():
                # Raises with the reason, even if `is_available` has used up its warning in this process before.
                torch.cuda.init()  # type: ignore[no-untyped-call]
                reason = str(caught[-1].message) if caught else "torch.cuda.is_available() is False"
            elif runs:
                torch.ones(1, device=device).add_(1).item()
        except (RuntimeError, AssertionError) as error:  # builds without CUDA raise AssertionError
            reason = str(error) or type(error).__name__
    if reason is not None:
        reason = reason.strip().partition("\n")[0].rstrip(".")[:300]
    return TorchVerdict(str(torch.__version__), torch.version.cuda, reason)


def choose_device(device: str = "auto", *, environment: Mapping[str, str] | None = None, runs: bool = True) -> str:
    """Return the torch device to use; `auto` is a GPU if there is one, unless the environment asks for the CPU.

    Raises `InputError` where torch cannot use the GPU of this machine, and for AMD GPUs: there is no silent fallback to
    the CPU.
    """
    is_auto = device == "auto"
    if device.startswith("cpu") or (is_auto and wants_cpu(environment)):
        return "cpu" if is_auto else device
    device = "cuda" if is_auto else device
    verdict = ask_torch(device, runs=runs)
    if verdict.reason is None:
        return device
    if nvidia_files():
        raise InputError(refusal(verdict, sys.executable))
    if has_only_amd():
        raise InputError(AMD)
    if is_auto:
        return "cpu"
    raise InputError(f"device {device!r}: this machine has no GPU: give cpu")


def refusal(verdict: TorchVerdict, python: str) -> str:
    """Return the message that this machine's GPU cannot be used, with the reason and the remedy."""
    driver = driver_version()
    needed = needed_driver(verdict.cuda)
    build = f"built for CUDA {verdict.cuda}" if verdict.cuda else "a build without CUDA"
    if needed:
        build += f", which needs driver {needed} or later"
    shown = os.environ.get(VISIBLE)
    hidden = f"; {VISIBLE} is {shown!r}" if shown is not None else ""
    return (
        f"an NVIDIA GPU is here ({nvidia_files()[0]}, driver {driver or 'of unknown version'}{hidden}), and torch "
        f"{verdict.version} of {python} ({build}) cannot use it: {verdict.reason}: {_remedy(verdict, driver)}, "
        f"or {ASK_FOR_CPU}"
    )


def _remedy(verdict: TorchVerdict, driver: str | None) -> str:
    if verdict.cuda is None:
        return "run `make setup`, which installs the build for GPUs"
    if is_driver_too_old(driver, verdict.cuda):
        return f"install driver {needed_driver(verdict.cuda)} or later"
    if path := unreadable_file():
        return f"let this user open {path}"
    return "see the output of nvidia-smi"


def describe_use(device: str, dtype: str, count: int = 1) -> dict[str, Any]:
    """Return the devices of a run for its log and manifest: `device`, `dtype`, `count`; for GPUs `names`, `driver`."""
    used: dict[str, Any] = {"device": device, "dtype": dtype.removeprefix("torch."), "count": count}
    if device.startswith("cuda"):
        import torch

        index = device.partition(":")[2]
        numbers = [int(index)] if index else range(count)
        used["names"] = [torch.cuda.get_device_name(number) for number in numbers]
        used["driver"] = driver_version()
    return used


def use_line(used: Mapping[str, Any]) -> str:
    """Return the result of `describe_use` as a short text."""
    names = ", ".join(dict.fromkeys(used.get("names", ())))
    return f"{used['count']} x {used['device']}{f' ({names})' if names else ''}, {used['dtype']}"


def ask_nvidia_smi(*arguments: str) -> list[str]:
    """Return the lines that nvidia-smi prints; empty where it is missing, fails, or hangs for `PATIENCE_S`."""
    program = _find_nvidia_smi()
    if program is None:
        return []
    command = [program, *arguments]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return []
    assert process.stdout is not None
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        # No unbounded wait, as `subprocess.run` has: a process that hangs in the driver cannot be killed.
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
        process.stdout.close()
        return []
    return [line.rstrip() for line in output.splitlines() if line.strip()] if process.returncode == 0 else []


def _find_nvidia_smi() -> str | None:
    return shutil.which("nvidia-smi", path=f"{os.environ.get('PATH', '')}{os.pathsep}{WSL}")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(ask_torch()._asdict()) + "\n")
