"""Clocks of the device, its memory, and the times that the host waits for it."""

from __future__ import annotations

import gc
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GIB = 2**30
_READS = frozenset(["tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__"])
"""Calls in which the host reads a tensor's values."""


def has_gpu() -> bool:
    """Return whether there is a GPU that torch can use."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """Return the device that is measured: the first GPU, or the CPU in a rehearsal."""
    return torch.device("cuda" if has_gpu() else "cpu")


def synchronize() -> None:
    """Wait until the device has done all that was launched."""
    if has_gpu():
        torch.cuda.synchronize()


def milliseconds(call: Callable[[], Any], *, repeat: int = 10) -> float:
    """Return the mean milliseconds of a call, after two that do not count; in a rehearsal, of two calls after one."""
    repeat = repeat if has_gpu() else min(repeat, 2)
    for _ in range(2 if has_gpu() else 1):
        call()
    synchronize()
    began = time.perf_counter()
    for _ in range(repeat):
        call()
    synchronize()
    return (time.perf_counter() - began) / repeat * 1e3


def seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    synchronize()
    began = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - began


def free_cached() -> None:
    """Give cached memory of the device back, and begin to measure its peak."""
    gc.collect()
    if has_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float | None:
    """Return the most memory that torch has had on the GPU since `free_cached`; None without a GPU."""
    return round(torch.cuda.max_memory_allocated() / GIB, 2) if has_gpu() else None


class HostReads(TorchFunctionMode):
    """Counts the calls in which the host reads a tensor's values: with a GPU it waits there."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _READS and args and isinstance(args[0], Tensor):
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


def count_waits(call: Callable[[], Any]) -> int:
    """Return how often a call waits for the GPU by torch's own account; without a GPU, how often it reads values."""
    if not has_gpu():
        with HostReads() as reads:
            call()
        return reads.names.total()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def launches(call: Callable[[], Any]) -> dict[str, int]:
    """Return what a call launches: kernels, copies and graphs on a GPU, operations on a CPU; by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if has_gpu() else [])]
    with profile(activities=activities) as profiled:
        call()
        synchronize()
    counts = {event.key: event.count for event in profiled.key_averages()}
    if not has_gpu():
        return {"operations": sum(count for name, count in counts.items() if name.startswith("aten::"))}
    kinds = {"kernels": "LaunchKernel", "graphs": "GraphLaunch", "copies": "Memcpy", "waits": "Synchronize"}
    return {
        kind: sum(count for name, count in counts.items() if name.startswith("cu") and part in name)
        for kind, part in kinds.items()
    }
