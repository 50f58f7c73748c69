"""The machine, what a batch does when memory runs out, memory that ended processes give back, and training."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch

from benchmarks.contender_process import ROOT, scratch_folder
from benchmarks.gpu.ledger import Figures, Measurement, NotHereError
from benchmarks.gpu.subjects import SIZES, Subjects, save_model
from benchmarks.gpu.timing import GIB, device, free_cached, has_gpu, peak_gib
from benchmarks.machine import machine as describe_machine

_HOLD = """
import sys, time, torch
held = torch.ones(int(sys.argv[1]), dtype=torch.uint8, device=sys.argv[2])
print("held", flush=True)
time.sleep(600)
"""
_OWNER = """
import sys, time
from pathlib import Path
from rollmill.inference.supervised_process import SupervisedProcess
process = SupervisedProcess(sys.argv[2:], log=Path(sys.argv[1]), grace_s=2)
time.sleep(600)
"""
_PATIENCE_S = 60.0


def machine(subjects: Subjects) -> Iterator[Measurement]:
    """Yield a description of the machine."""

    def measure() -> Figures:
        facts: Figures = {"machine": describe_machine(), "torch": torch.__version__, "cuda": torch.version.cuda}
        facts |= {"gpus": torch.cuda.device_count(), "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
        facts |= {name: shutil.which(name) is not None for name in ("nvidia-smi", "nvcc", "gcc", "ninja")}
        if has_gpu():
            properties = torch.cuda.get_device_properties(0)
            facts |= {"gpu": properties.name, "gib": round(properties.total_memory / GIB, 1)}
            facts["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
        return facts

    yield Measurement("machine", {}, measure)


def memory(subjects: Subjects) -> Iterator[Measurement]:
    """Yield the measurement of a batch that does not fit: it is halved, and every answer comes."""

    def measure() -> Figures:
        from rollmill.jobs.optimal_sampling.decoding import Decoder

        if not has_gpu():
            raise NotHereError("no GPU: the CPU's memory is not limited for torch")
        pair = subjects.pair()
        free_cached()
        total, rows = torch.cuda.get_device_properties(0).total_memory, 4 * max(subjects.size.batches)
        decoder = Decoder(pair, batch_size=rows, max_new_tokens=4)
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_allocated() + 2 * GIB) / total))
        try:
            answers = list(decoder.decode(subjects.requests(rows)))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return {"batch": rows, "halved_to": decoder.batch_size, "answers": len(answers), "peak_gib": peak_gib()}

    yield Measurement("batch that runs out of memory", {}, measure)


def ended(subjects: Subjects) -> Iterator[Measurement]:
    """Yield measurements of the seconds until an ended process's memory is free."""
    held = (8 if has_gpu() else 0.05) * GIB
    yield Measurement("memory after a process is ended", {}, lambda: _given_back(int(held), owner=False))
    yield Measurement("memory after the owner is killed", {}, lambda: _given_back(int(held), owner=True))


def _given_back(held: int, *, owner: bool) -> Figures:
    """Measure from the end of a process that holds memory of the device until it has ended, and the memory is free.

    With `owner` the process that started it is killed; else it is ended as the jobs end their servers.
    """
    from rollmill.inference.supervised_process import SupervisedProcess

    with scratch_folder() as folder:
        log = folder / "log"
        command = [sys.executable, "-c", _HOLD, str(held), device().type]
        before = _free()
        if owner:
            parent = subprocess.Popen([sys.executable, "-c", _OWNER, str(log), *command], cwd=ROOT)
            try:
                _wait(lambda: log.exists() and "held" in log.read_text(), "the process has not taken its memory")
                holder = _holder(parent.pid)
            finally:
                began = time.perf_counter()
                os.kill(parent.pid, signal.SIGKILL)
                parent.wait()
        else:
            process = SupervisedProcess(command, log=log, grace_s=2)
            try:
                _wait(lambda: log.exists() and "held" in log.read_text(), "the process has not taken its memory")
                holder = _holder(process.pid)
            finally:
                began = time.perf_counter()
                process.end()
        _wait(lambda: not holder.is_running(), "the process has not ended")
        figures: Figures = {"held_gib": round(held / GIB, 2), "process_s": round(time.perf_counter() - began, 2)}
        if has_gpu():
            _wait(lambda: _free() > before - GIB, "the memory has not been given back")
            figures["memory_s"] = round(time.perf_counter() - began, 2)
    return figures


def _holder(pid: int) -> psutil.Process:
    """Return the process that holds the memory, among the descendants of another."""
    descendants = psutil.Process(pid).children(recursive=True)
    return next(item for item in descendants if "held" in " ".join(item.cmdline()) and item.children() == [])


def _free() -> float:
    return float(torch.cuda.mem_get_info()[0]) if has_gpu() else 0.0


def _wait(condition: Callable[[], bool], failure: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{failure} after {_PATIENCE_S:.0f} s")
        time.sleep(0.05)


def training(subjects: Subjects) -> Iterator[Measurement]:
    """Yield measurements of LoRA training, by rollmill's trainer and by a bare TRL script, each in a process."""
    size = SIZES["tiny" if subjects.size.name == "tiny" else "0.6B"]
    rows = 4 if size.name == "tiny" else 256
    for name, contender in (("bare TRL", "bare_trl"), ("rollmill", "rollmill_worker")):

        def measure(contender: str = contender) -> Figures:
            import datasets  # noqa: F401  # both need them: the reason is then the missing package's name
            import trl  # noqa: F401

            from benchmarks.training import measure as run

            subjects.release()
            with scratch_folder() as folder:
                figures: dict[str, Any] = run(contender, save_model(size, folder / "model"), rows)
            return {
                "tokens_per_s": round(figures["tokens"] / figures["seconds"], 1),
                "tokens": figures["tokens"],
                "peak_mb": round(figures["peak_mb"]),
            }

        yield Measurement("LoRA training", {"by": name, "model": size.name, "rows": rows}, measure)
