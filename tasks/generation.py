"""Making rollouts: a canary, then shard after shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from rollmill.generation import canary
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.records import Problem
from tasks.errors import report_failure
from tasks.interruption import result_of

SHARD_S = 15.0
"""Seconds of work in one shard, at the rate of the last minute."""
LEAST_SHARD, MOST_SHARD = 512, 16_384
"""Bounds of a shard, in rollouts."""


@task(name="canary", cache_policy=NO_CACHE)
@report_failure
def try_canary(session: RolloutSession) -> None:
    """Makes a few rollouts, says what the rest will cost, and stops the run where it is not worth it."""
    run = session.run
    chosen = canary.choose(run.problems(), run.problem_count)
    session.generate(chosen, first=canary.CANARY_ROLLOUTS)
    judge_canary(run, chosen, slots=session.slots)


def judge_canary(run: Run, chosen: Sequence[Problem], *, slots: int) -> None:
    """Says what the canary's rollouts tell of the rest. Raises `RunStoppedError` where that is not worth it."""
    projection = canary.project(run, canary.canary_rollouts(run, chosen), slots=slots)
    if projection is not None:
        get_run_logger().info(projection.describe())
        canary.check(projection, directory=run.directory, max_tokens=run.max_tokens)


@task(name="rollouts", task_run_name="rollouts of {first}..{last}", cache_policy=NO_CACHE)
@report_failure
def generate_shard(session: RolloutSession, problems: Sequence[Problem], first: int, last: int) -> None:
    """Makes what the run still wants of some problems."""
    tally = session.generate(problems)
    get_run_logger().info("%d rollouts: %d ok, %d unparseable, %d failed", *tally.counts())


def generate_all(session: RolloutSession) -> None:
    """Hands in all problems, shard by shard, ahead of the slots, and waits for the end.

    Raises what ended the first shard that failed.
    """
    futures: list[PrefectFuture[None]] = []
    for first, shard in shards(session):
        futures.append(generate_shard.submit(session, shard, first, first + len(shard) - 1))
        if session.stopped:  # the shard just handed in raises why
            break
    for future in futures:
        result_of(future)


def shards(session: RolloutSession) -> Iterator[tuple[int, list[Problem]]]:
    """(Number of the first problem, problems), each when the slots will soon need it."""
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
    """How many problems make a shard: some seconds of work, so that what Prefect does for each is small beside it."""
    rollouts = progress.snapshot().rollouts_per_s * SHARD_S
    return -(-int(min(max(rollouts, LEAST_SHARD), MOST_SHARD)) // num_rollout)
