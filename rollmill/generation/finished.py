"""Calls that have come to their end before: the same again needs neither servers nor an orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from rollmill.errors import InputError

if TYPE_CHECKING:
    from rollmill.generation.job import GenerationJob, OutcomeT

_NEVER_FINISHED = ("store_block", "reverify", "log_file", "run_sft_training")
"""Parameters of calls that do more than report what is there: copy it, judge it again, log, train."""


def has_finished(directory: Path, parameters: BaseModel) -> bool:
    """Tell whether the last call for a run directory came to its end and had the same parameters.

    Reads the manifest alone. Rollouts may be missing all the same, where they failed and are to be tried again. Raises
    `InputError` where the manifest cannot be read.
    """
    from rollmill.generation.manifest import read_manifest  # late: a command's help has no manifest

    if any(getattr(parameters, name, None) for name in _NEVER_FINISHED):
        return False
    manifest = read_manifest(directory)
    if manifest is None or manifest.ended_at is None:
        return False
    try:
        earlier = type(parameters).model_validate(manifest.parameters)
    except (InputError, ValidationError):  # a version with other parameters, or files they named that are gone
        return False
    return earlier == parameters


def finished_outcomes(parameters: BaseModel, directories: Sequence[Path], jobs: str) -> list[Any] | None:
    """Report a call's runs again where each has come to its end; None where any rollout is missing.

    Args:
        parameters: The call's.
        directories: Its runs'.
        jobs: `package.module:function` that returns the call's jobs: imported only where the runs have ended, since it
            brings all that a job needs.

    Raises `InputError` as the jobs, and opening their runs, do.
    """
    if not all(has_finished(directory, parameters) for directory in directories):
        return None
    from rollmill.terminal.interruption import interruptible

    module, _, function = jobs.partition(":")
    with interruptible():
        make_jobs: Callable[[BaseModel], Sequence[GenerationJob[Any]]] = getattr(import_module(module), function)
        return report_complete(make_jobs(parameters))


def report_complete(jobs: Sequence[GenerationJob[OutcomeT]]) -> list[OutcomeT] | None:
    """Report the runs of jobs where none misses a rollout; None, and nothing is written, where one does.

    Raises `RunStoppedError` where all rollouts of one failed.
    """
    from rollmill.generation.failures import check_not_all_failed
    from rollmill.generation.job import opened_run

    with ExitStack() as stack:
        runs = [(job, stack.enter_context(opened_run(job))) for job in jobs]
        progress = [job.progress(run) for job, run in runs]
        if any(each.left for each in progress):
            return None
        outcomes = [job.report(run, each) for (job, run), each in zip(runs, progress, strict=True)]
        for job, run in runs:
            check_not_all_failed(run, needs_verdicts=job.needs_verdicts)
        return outcomes
