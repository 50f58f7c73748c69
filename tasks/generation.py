"""Making rollouts: a canary, then shard after shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from rollmill.records import Problem
from rollmill.rollouts import canary
from rollmill.rollouts.run import Run
from rollmill.rollouts.session import RolloutSession
from tasks.outcomes import failing_in_one_line

LEAST_SHARD = 256
"""Rollouts of the smallest shard."""
MOST_SHARDS = 400
"""Task runs of the largest run, about."""


@task(name="canary", cache_policy=NO_CACHE)
@failing_in_one_line
def try_canary(session: RolloutSession) -> None:
    """Makes a few rollouts, says what the rest will cost, and stops the run where it is not worth it."""
    run = session.run
    chosen = canary.choose(run.problems(), run.problem_count)
    session.generate(chosen, first=canary.CANARY_ROLLOUTS)
    projection = canary.project(run, canary.canary_rollouts(run, chosen), slots=session.slots)
    if projection is not None:
        get_run_logger().info(projection.describe())
        canary.check(projection, directory=run.directory, max_tokens=run.max_tokens)


@task(name="rollouts", task_run_name="rollouts of {first}..{last}", cache_policy=NO_CACHE)
@failing_in_one_line
def generate_shard(session: RolloutSession, problems: Sequence[Problem], first: int, last: int) -> None:
    """Makes what the run still wants of some problems."""
    tally = session.generate(problems)
    get_run_logger().info("%d rollouts: %d ok, %d unparseable, %d failed", *tally.counts())


def generate_all(session: RolloutSession) -> None:
    """Hands in all problems, shard by shard, as fast as slots become free, and waits for the end.

    Raises what ended the first shard that failed.
    """
    futures: list[PrefectFuture[None]] = []
    for first, problems in shards(session.run):
        session.wait_for_room()
        futures.append(generate_shard.submit(session, problems, first, first + len(problems) - 1))
        if any(future.state.is_failed() for future in futures):
            break
    for future in futures:
        future.result()


def shards(run: Run) -> Iterator[tuple[int, list[Problem]]]:
    """(Number of the first problem, problems): at least 256 rollouts each, and about 400 shards at most."""
    rollouts = max(LEAST_SHARD, run.expected // MOST_SHARDS)
    size = -(-rollouts // run.num_rollout)
    problems = run.problems()
    first = 0
    while shard := list(islice(problems, size)):
        yield first, shard
        first += len(shard)
