"""Generates rollouts in this process: first a canary, then shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from blocks.services import find_services
from rollmill.generation import canary
from rollmill.generation.concurrency import PLANNED
from rollmill.generation.job import GenerationJob
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.services import GeneratorContext
from rollmill.generation.session import RolloutSession
from rollmill.records import Problem
from tasks.artifacts import track_progress
from tasks.errors import report_failure
from tasks.interruption import result_of

SHARD_S = 15.0
"""Seconds of work in one shard, at the rate of the last minute."""
LEAST_SHARD, MOST_SHARD = 512, 16_384
"""Bounds of a shard's size, in rollouts."""


class RolloutMaker(Protocol):
    """Generates a run's rollouts, in this process or on workers."""

    def try_canary(self) -> None:
        """Generate a few rollouts, log the projected cost of the rest, and stop if that is not worth it."""
        ...

    def make_all(self) -> None:
        """Generate all missing rollouts. Raises the error of the first shard that failed."""
        ...


class LocalRollouts:
    """Generates a run's rollouts in this process, with the slots of one session; each is journaled at once.

    Shards are submitted ahead of the slots' need, so that a straggler of one shard does not delay the next.
    """

    def __init__(self, session: RolloutSession) -> None:
        self._session = session

    def try_canary(self) -> None:
        """Generate a few rollouts, log the projected cost of the rest, and stop if that is not worth it."""
        result_of(try_canary.submit(self._session))

    def make_all(self) -> None:
        """Generate all missing rollouts. Raises the error of the first shard that failed."""
        generate_all(self._session)


@contextmanager
def rollouts_here(job: GenerationJob[Any], run: Run, progress: Progress) -> Iterator[LocalRollouts]:
    """Open a job's servers and sandboxes while the block runs, to generate its rollouts with them.

    Raises as the job's `open_generator` does.
    """
    with job.open_generator(GeneratorContext(find_services(job.parameters))) as generator:
        progress.start()
        session = RolloutSession(run, generator, slots=job.slots, progress=progress)
        with session, track_progress(progress, job.name):
            yield LocalRollouts(session)


@task(name="canary", cache_policy=NO_CACHE)
@report_failure
def try_canary(session: RolloutSession) -> None:
    """Generate a few rollouts, log the projected cost of the rest, and stop the run if that is not worth it."""
    run = session.run
    chosen = canary.choose(run.problems(), run.problem_count)
    session.generate(chosen, limit=canary.CANARY_ROLLOUTS)
    judge_canary(run, chosen, slots=PLANNED if session.found_slots else session.slots)


def judge_canary(run: Run, chosen: Sequence[Problem], *, slots: int) -> None:
    """Log the cost of the run as projected from the canary. Raises `RunStoppedError` if that is not worth it."""
    rollouts = canary.canary_rollouts(run, chosen)
    canary.check_some_answered(rollouts, directory=run.directory)
    projection = canary.project(run, rollouts, slots=slots)
    if projection is not None:
        get_run_logger().info(projection.describe())
        canary.check(projection, directory=run.directory, max_tokens=run.max_tokens)


@task(name="rollouts", task_run_name="rollouts of {first}..{last}", cache_policy=NO_CACHE)
@report_failure
def generate_shard(session: RolloutSession, problems: Sequence[Problem], first: int, last: int) -> None:
    """Generate the missing rollouts of some problems.

    Args:
        session: Generates the rollouts.
        problems: The shard's.
        first: Number of the first problem, for the task's name.
        last: Number of the last problem, for the task's name.
    """
    tally = session.generate(problems)
    get_run_logger().info("%d rollouts: %d ok, %d unparseable, %d failed", *tally.counts())


def generate_all(session: RolloutSession) -> None:
    """Submit all problems, shard by shard, ahead of the slots' need, and wait for the end.

    Raises the error of the first shard that failed.
    """
    futures: list[PrefectFuture[None]] = []
    for first, shard in shards(session):
        futures.append(generate_shard.submit(session, shard, first, first + len(shard) - 1))
        if session.stopped:  # the shard just submitted raises the error
            break
    for future in futures:
        result_of(future)


def shards(session: RolloutSession) -> Iterator[tuple[int, list[Problem]]]:
    """Yield shards as (number of the first problem, problems), each when the slots will soon need it."""
    problems = session.run.problems()
    first = 0
    while True:
        session.wait_for_room()
        shard = list(islice(problems, shard_size(session.progress, session.run.num_rollout)))
        if not shard:
            return
        yield first, shard
        first += len(shard)


def shard_size(progress: Progress, num_rollout: int) -> int:
    """Return the number of problems of a shard: about `SHARD_S` of work, so that Prefect's overhead is small."""
    rollouts = progress.snapshot().rollouts_per_s * SHARD_S
    return -(-int(min(max(rollouts, LEAST_SHARD), MOST_SHARD)) // num_rollout)
