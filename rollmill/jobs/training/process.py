"""Starts the worker process of a run, polls it, and ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rollmill.errors import InputError, RunStoppedError
from rollmill.inference.devices import VISIBLE, use_line
from rollmill.inference.supervised_process import SupervisedProcess
from rollmill.jobs.training.advice import memory_advice
from rollmill.jobs.training.hardware import reserved_for_training, used_device
from rollmill.jobs.training.memory_plan import planned_parameters, read_plan
from rollmill.jobs.training.work import LOGS, TrainingWork, read_outcome

_log = logging.getLogger(__name__)

LOG = "training.log"
_POLL_S = 0.2
_KILLED = (128 + signal.SIGKILL, -signal.SIGKILL)
"""Exit codes after SIGKILL: of the worker, as its supervisor reports it, and of the supervisor itself."""
_TAIL_BYTES = 4000


def run_worker(work: TrainingWork, stop: Callable[[], bool] | None = None) -> None:
    """Run one stage of a run in a worker process, to its end; the worker ends with this process.

    Raises `InputError` as `reserved_for_training` does, with the worker's message, or with advice on memory where it
    was killed, and `RunStoppedError` where it left no message, or where `stop`, polled every 0.2 s, returns True: then
    the worker is ended first.
    """
    work.folder.mkdir(parents=True, exist_ok=True)
    work.write()
    log = work.directory / LOGS / LOG
    log_begin = log.stat().st_size if log.exists() else 0
    with _worker_environment(work, os.environ) as environment:
        code = _run_process(work, SupervisedProcess(worker_command(work), log=log, environment=environment), stop)
    if code:
        _raise_failure(work, code, log, log_begin)


def _run_process(work: TrainingWork, process: SupervisedProcess, stop: Callable[[], bool] | None) -> int:
    """Wait for the worker's end; return its exit code. Raises `RunStoppedError` as `run_worker` does."""
    announced, is_memory_reported = work.stage == "merge", work.stage != "train"
    try:
        while (code := process.wait(_POLL_S)) is None:
            if not announced and (used := used_device(work)):
                _log.info("%s on %s", "training" if work.stage == "train" else "preparing", use_line(used))
                announced = True
            if not is_memory_reported and (plan := read_plan(work)):
                if plan.line:
                    _log.info("%s", plan.line)
                is_memory_reported = True
            if stop and stop():
                raise RunStoppedError(
                    f"training in {work.directory} was stopped from outside; run the same command again to continue"
                )
        return code
    finally:
        process.end()


def worker_command(work: TrainingWork) -> list[str]:
    """Return the worker's command: one process, or torchrun with one per GPU.

    `accelerate launch --multi_gpu` runs torchrun, too; torchrun itself also starts several processes without GPUs.
    """
    worker = ["-m", "rollmill.jobs.training.worker", str(work.spec)]
    processes = work.parameters.processes
    if work.stage != "train" or processes == 1:
        return [sys.executable, *worker]
    launch = ["--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, "-m", "torch.distributed.run", *launch, *worker]


@contextmanager
def _worker_environment(work: TrainingWork, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the variables of a worker, whose GPUs are reserved during the block."""
    # Merging takes no GPU, and may follow on another machine.
    merging = work.stage == "merge"
    reserved = nullcontext({VISIBLE: ""}) if merging else reserved_for_training(work.parameters, environment)
    with reserved as gpus:
        yield {
            **gpus,
            "HF_DATASETS_CACHE": str(work.folder / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }


def _raise_failure(work: TrainingWork, code: int, log: Path, log_begin: int) -> None:
    """Raise the error for a worker that ended with an exit code other than 0.

    Args:
        work: The worker's job.
        code: The exit code.
        log: The log of the run.
        log_begin: Offset in bytes at which this worker's output begins.
    """
    with log.open("rb") as file:
        file.seek(max(log_begin, log.stat().st_size - _TAIL_BYTES))
        output = file.read().decode("utf-8", "replace").strip()
    outcome = read_outcome(work.outcome)
    if outcome is not None and outcome.error:
        raise InputError(outcome.error, details=output)
    # torchrun exits with 1 and prints the exit code of the process that was killed.
    if code in _KILLED or "exitcode  : -9" in output or "exitcode: -9" in output:
        raise InputError(
            f"the training process was killed, most likely because the machine's memory ran out: "
            f"{memory_advice(planned_parameters(work))}; if somebody ended it, run the same command again to continue",
            details=output,
        )
    last = output.splitlines()[-1] if output else "it wrote nothing to its log"
    raise RunStoppedError(
        f"the training process ended with code {code} ({last[:200]}): see {log}; "
        "run the same command again to continue",
        details=output,
    )
