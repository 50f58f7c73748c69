"""The worker process as its owner sees it: started, watched, ended."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from rollmill.errors import InputError, RunStoppedError
from rollmill.inference.devices import listed_gpus, use_line, wants_cpu
from rollmill.inference.supervised_process import KeptProcess
from rollmill.jobs.training.advice import less_memory
from rollmill.jobs.training.hardware import used_device
from rollmill.jobs.training.work import LOGS, TrainingWork, read_outcome

_log = logging.getLogger(__name__)

LOG = "training.log"
_LOOK_S = 0.2
_KILLED = (128 + signal.SIGKILL, -signal.SIGKILL)
"""The worker's end, and its keeper's."""
_TAIL_BYTES = 4000


def run_worker(work: TrainingWork, stop: Callable[[], bool] | None = None) -> None:
    """Do one stage of a run in a process of its own, to its end; that process ends with this one.

    Raises `InputError` with what the worker says, or with advice on memory where it was killed, and `RunStoppedError`
    where it says nothing, or where `stop`, asked every 0.2 s, answers True: then the process is ended before.
    """
    work.folder.mkdir(parents=True, exist_ok=True)
    work.write()
    log = work.directory / LOGS / LOG
    begun = log.stat().st_size if log.exists() else 0
    process = KeptProcess(worker_command(work), log=log, environment=_environment(work, os.environ))
    announced = work.stage == "merge"
    try:
        while (code := process.wait(_LOOK_S)) is None:
            if not announced and (used := used_device(work)):
                _log.info("%s on %s", "training" if work.stage == "train" else "preparing", use_line(used))
                announced = True
            if stop and stop():
                raise RunStoppedError(
                    f"training in {work.directory} was stopped from outside; the same command continues"
                )
    finally:
        process.end()
    if code:
        _fail(work, code, log, begun)


def worker_command(work: TrainingWork) -> list[str]:
    """Return the command of one process, or of as many as GPUs.

    By torchrun, which is what `accelerate launch --multi_gpu` runs, too, and which also starts processes without GPUs.
    """
    worker = ["-m", "rollmill.jobs.training.worker", str(work.spec)]
    processes = work.parameters.processes
    if work.stage != "train" or processes == 1:
        return [sys.executable, *worker]
    launch = ["--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, "-m", "torch.distributed.run", *launch, *worker]


def visible_devices(wanted: int, environment: Mapping[str, str]) -> str:
    """Return what `CUDA_VISIBLE_DEVICES` becomes: the first `wanted` of those that are visible now.

    Raises `InputError` where the variable shows fewer.
    """
    devices = listed_gpus(environment)
    if devices is None:
        return ",".join(map(str, range(wanted)))
    if wanted > max(1, len(devices)):
        raise InputError(f"--num_gpus {wanted}: CUDA_VISIBLE_DEVICES shows {len(devices)}")
    return ",".join(devices[:wanted])


def _environment(work: TrainingWork, environment: Mapping[str, str]) -> dict[str, str]:
    parameters = work.parameters
    cpu = parameters.device == "cpu" or (parameters.device == "auto" and wants_cpu(environment))
    gpus = 0 if cpu else parameters.num_gpus  # none is visible then, for every library in the worker
    return {
        "CUDA_VISIBLE_DEVICES": visible_devices(gpus, environment),
        "HF_DATASETS_CACHE": str(work.folder / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _fail(work: TrainingWork, code: int, log: Path, begun: int) -> None:
    """Raise what a worker's end means."""
    with log.open("rb") as file:
        file.seek(max(begun, log.stat().st_size - _TAIL_BYTES))
        words = file.read().decode("utf-8", "replace").strip()
    outcome = read_outcome(work.outcome)
    if outcome is not None and outcome.error:
        raise InputError(outcome.error, details=words)
    if code in _KILLED or "exitcode  : -9" in words or "exitcode: -9" in words:
        raise InputError(
            f"the training process was killed, most likely because the machine's memory ran out: "
            f"{less_memory(work.parameters)}; where somebody ended it, the same command continues",
            details=words,
        )
    last = words.splitlines()[-1] if words else "it left no words"
    raise RunStoppedError(
        f"the training process ended with code {code} ({last[:200]}): see {log}; the same command continues",
        details=words,
    )
