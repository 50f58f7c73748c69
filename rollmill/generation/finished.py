"""Report a run that has finished before, when its command is given again, without servers and without Prefect."""

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
"""Parameters of calls that do more than report: copy the results, score again, write a log, train."""


def has_finished(directory: Path, parameters: BaseModel) -> bool:
    """Return whether the last call for a run directory finished, and had the same parameters.

    Reads the manifest only: failed rollouts that this call retries may still be missing. Raises `InputError` where the
    manifest cannot be read.
    """
    from rollmill.generation.manifest import read_manifest  # late: `--help` does not need it

    if any(getattr(parameters, name, None) for name in _NEVER_FINISHED):
        return False
    manifest = read_manifest(directory)
    if manifest is None or manifest.ended_at is None:
        return False
    try:
        earlier = type(parameters).model_validate(manifest.parameters)
    except (InputError, ValidationError):  # another version's parameters, or files that no longer exist
        return False
    return earlier == parameters


def finished_outcomes(parameters: BaseModel, directories: Sequence[Path], jobs: str) -> list[Any] | None:
    """Report a call's runs again if all of them have finished; return None if any rollout is missing.

    Args:
        parameters: The call's parameters, compared with those in the manifests.
        directories: Run directories of the call.
        jobs: `package.module:function` that returns the call's jobs. It is imported only when the runs have finished,
            because it imports everything that a job needs.

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
    """Report the runs of these jobs if no rollout is missing; otherwise write nothing and return None.

    Raises `RunStoppedError` where all rollouts of a run failed.
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
