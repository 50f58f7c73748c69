"""Runs a generating job: generates its missing rollouts, in this process or on workers, and writes its results."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from blocks.services import find_services
from rollmill.generation.failures import check_not_all_failed
from rollmill.generation.job import GenerationJob, adapt_to_servers, opened_run, read_request_changes
from rollmill.generation.outcome import JobOutcome
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.services import Services
from rollmill.terminal.escapes import visible_line
from tasks.artifacts import show_outcome
from tasks.errors import report_failure
from tasks.generation import RolloutMaker, rollouts_here
from tasks.interruption import result_of
from tasks.result_upload import ResultUploader
from tasks.sharding import rollouts_on_workers

OutcomeT = TypeVar("OutcomeT", bound=JobOutcome)


def waiting_threads() -> Any:
    """Return the task runner of a flow that runs a job.

    A shard's thread only waits for its last straggler: with too few threads the next shard would have to wait.
    """
    return ThreadPoolTaskRunner(max_workers=512)


def run_job(job: GenerationJob[OutcomeT], store: ResultUploader | None = None) -> OutcomeT:
    """Generate the missing rollouts of a job, rewrite its results, and publish them. Call it in a flow.

    With a `store` the results are copied while the run is locked, so that no other process changes them. Raises as the
    job's methods and the store do, and `RunStoppedError` if the work was stopped, or all rollouts failed.
    """
    services = cache(partial(find_services, job.parameters))  # reads the blocks once, and only if needed
    is_new = read_request_changes(job) is None
    placement_notes: tuple[str, ...] = ()
    if is_new and not job.reverify:
        placement_notes = check_placement(job, services())  # before the problems are loaded
        job = adapt_to_servers(job, services())  # before its identity is computed
    with opened_run(job) as run:
        if job.retry == "failed":
            result_of(verify_failed.submit(job, run))
        progress = job.progress(run)
        if job.reverify:
            result_of(score_again.submit(job, run))
        elif progress.left:
            if not is_new:
                placement_notes = check_placement(job, services())
                job = adapt_to_servers(job, services())
                run.note_changes(dict(job.request_changes))
            run.add_notes(job.context_notes(run, services()))
            if columns := run.manifest.problems.get("columns"):
                taken = ", ".join(f"{role} is {column!r}" for role, column in columns.items())
                get_run_logger().info("%s: columns of the problems: %s", job.name, visible_line(taken))
            for note in run.manifest.notes:
                get_run_logger().info("%s: %s", job.name, note)
            for note in placement_notes:
                get_run_logger().info("%s: %s", job.name, note)
            make_rollouts(job, run, progress)
        outcome = result_of(write_results.submit(job, run, progress))
        if store is not None:
            store(outcome)
            store.wait()
        check_not_all_failed(run, needs_verdicts=job.needs_verdicts)
        return outcome


def check_placement(job: GenerationJob[Any], services: Services) -> tuple[str, ...]:
    """Check that the job's processes fit on this machine's GPUs; return what to say of their use.

    A cluster's workers are placed by their own environments. Raises `InputError` as the job's `placement` does.
    """
    return () if job.parameters.cluster_block else job.placement(services).notes


def make_rollouts(job: GenerationJob[Any], run: Run, progress: Progress) -> None:
    """Generate the missing rollouts, in this process or on workers, as the parameters say."""
    generation: AbstractContextManager[RolloutMaker]
    generation = rollouts_on_workers(job, run, progress) if job.on_workers else rollouts_here(job, run, progress)
    with generation as rollouts:
        if job.tries_canary:
            rollouts.try_canary()
        rollouts.make_all()


@task(name="score again", cache_policy=NO_CACHE)
@report_failure
def score_again(job: GenerationJob[Any], run: Run) -> None:
    """Score the completions on disk again, with the verifier of the parameters."""
    count = job.score_again(run)
    get_run_logger().info("%d completions scored again, now in %s", count, run.manifest.journal)


@task(name="verify again", cache_policy=NO_CACHE)
@report_failure
def verify_failed(job: GenerationJob[Any], run: Run) -> None:
    """Verify the completions again on which the verifier failed, without new requests."""
    if count := job.verify_failed(run):
        get_run_logger().info("%d completions judged that a verifier had failed on", count)


@task(name="write results", cache_policy=NO_CACHE)
@report_failure
def write_results(job: GenerationJob[OutcomeT], run: Run, progress: Progress) -> OutcomeT:
    """Write the results from the journal, and publish them."""
    run.note_slots(progress.slots)
    outcome = job.report(run, progress)
    show_outcome(outcome)
    return outcome
