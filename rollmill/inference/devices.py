"""GPUs of this machine: detection, and checks that torch can use them. Imports torch only in those checks.

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
from itertools import takewhile
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
OLDEST_DRIVERS = {"11": 450, "12": 525, "13": 580}
"""The oldest driver for each CUDA release (https://docs.nvidia.com/deploy/cuda-compatibility)."""
ASK_FOR_CPU = f"ask for the CPU: --device cpu where the flow has it, an empty {VISIBLE}, or {KIND}=cpu"
AMD = (
    "the AMD GPU here (/dev/kfd) is not used: nothing that `make setup` installs runs on it: serve the model "
    f"elsewhere, with vLLM's build for ROCm, and give its address as --base_url; or {ASK_FOR_CPU}"
)
_DEVICE = re.compile(r"nvidia(\d+)")
_LISTED = re.compile(r"\d+|(?:GPU|MIG)-.*", re.ASCII)
_NO_DEVICES = ("nodevfiles", "none", "void")
_WSL = "dxg"
_PATIENCE_S = 20.0


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
    if _WSL in names and not (WSL / "libcuda.so.1").exists() and _find_nvidia_smi() is None:
        names.remove(_WSL)
    return [str(DEV / name) for name in names if name in ("nvidiactl", _WSL) or _DEVICE.fullmatch(name)]


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


def listed_gpus(environment: Mapping[str, str]) -> list[str] | None:
    """Return the GPUs in `CUDA_VISIBLE_DEVICES` as CUDA parses it; None where it is not set.

    The list ends at the first entry that is not a GPU (https://docs.nvidia.com/cuda/cuda-c-programming-guide), which
    may be an empty one; of an entry that begins with a number only the number counts.
    """
    if VISIBLE not in environment:
        return None
    matches = (_LISTED.match(name.strip()) for name in environment[VISIBLE].split(","))
    return [name[0] for name in takewhile(bool, matches) if name]


def visible_gpus(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the NVIDIA GPUs that may be used, as `CUDA_VISIBLE_DEVICES` names them.

    Without that variable they are numbers from 0: a container's one GPU may be /dev/nvidia3, and is still CUDA's 0.
    """
    variables = os.environ if environment is None else environment
    if wants_cpu(variables):
        return []
    if (listed := listed_gpus(variables)) is not None:
        return listed
    names = [Path(path).name for path in nvidia_files()]
    count = sum(bool(_DEVICE.fullmatch(name)) for name in names)
    if not count and _WSL in names:
        count = len(_nvidia_smi("index")) or 1
    return [str(number) for number in range(count)]


def gpu_names() -> list[str]:
    """Return the model names of the NVIDIA GPUs; `a GPU` where there is one whose name the driver does not report."""
    texts = [path.read_text(errors="replace") for path in sorted((DRIVER / "gpus").glob("*/information"))]
    named = [
        line.partition(":")[2].strip() for text in texts for line in text.splitlines() if line.startswith("Model:")
    ]
    if named or not nvidia_files():
        return named
    return _nvidia_smi("name") or ["a GPU"]


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver, from /proc or nvidia-smi; None where neither has it."""
    try:
        text = (DRIVER / "version").read_text(errors="replace")
    except OSError:
        text = "\n".join(_nvidia_smi("driver_version"))
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


def _nvidia_smi(field: str) -> list[str]:
    """Return one field for each GPU; empty where nvidia-smi is missing, or fails for lack of a driver."""
    program = _find_nvidia_smi()
    if program is None:
        return []
    try:
        process = subprocess.run(
            [program, f"--query-gpu={field}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=_PATIENCE_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in process.stdout.splitlines() if line.strip()]


def _find_nvidia_smi() -> str | None:
    return shutil.which("nvidia-smi", path=f"{os.environ.get('PATH', '')}{os.pathsep}{WSL}")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(ask_torch()._asdict()) + "\n")
