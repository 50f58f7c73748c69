"""Making rollouts on workers: a canary, then shard after shard, each journaled here when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect.logging import get_run_logger
from prefect.tasks import Task

from blocks.cluster import dask_cluster
from rollmill.errors import InputError
from rollmill.rollouts import canary
from rollmill.rollouts.kept_session import end_kept
from rollmill.rollouts.progress import Progress
from rollmill.rollouts.run import Run
from rollmill.rollouts.shard import Shard, Sharding, ShardRollouts
from tasks.generation import MOST_SHARD, SHARD_S, judge_canary
from tasks.workers import Workers, workers_of

if TYPE_CHECKING:
    from prefect_dask.task_runners import PrefectDaskFuture

AHEAD = 4
"""Shards in each worker's hands. They share its slots, in order: one's stragglers leave none idle."""
WAVES = 4
"""A shard is for every slot so many times, or more where that takes less than `SHARD_S`."""
MOST_SHARDS_PER_S = 4.0
"""Of all workers together: with many of them shards become longer, since Prefect notes several events of each."""


@contextmanager
def cluster_workers(block: str | None) -> Iterator[Workers]:
    """The workers of a cluster; at the end what they have kept ends. Raises as `dask_cluster` and `workers_of` do."""
    cluster = dask_cluster(block)
    if cluster is None:
        raise InputError("no workers without --cluster_block")
    with workers_of(cluster) as workers:
        yield workers
        workers.everywhere(end_session)


async def end_session() -> None:
    """On a worker: ends the session that it keeps, unless a shard is being made."""
    await asyncio.to_thread(end_kept)


class ShardedRollouts:
    """Makes a run's rollouts on workers: this process alone writes.

    `task` takes `order`, a shard, and the numbers of its first and last problem; `slots` are those of each worker.
    """

    def __init__(
        self,
        run: Run,
        progress: Progress,
        workers: Workers,
        *,
        task: Task[..., ShardRollouts],
        order: Any,
        slots: int,
    ) -> None:
        self._run = run
        self._progress = progress
        self._workers = workers
        self._task = task
        self._order = order
        self._slots = slots
        self._sharding = Sharding(run, progress)
        self._pending: dict[PrefectDaskFuture[ShardRollouts], Shard] = {}

    def try_canary(self) -> None:
        """Makes a few rollouts on one worker, says what the rest will cost, and stops where it is not worth it."""
        chosen = canary.choose(self._run.problems(), self._run.problem_count)
        self._hand_in(self._sharding.cut_first(chosen, canary.CANARY_ROLLOUTS))
        self._take_all(lambda: None)
        judge_canary(self._run, chosen, slots=self._slots * self._workers.count)

    def make_all(self) -> None:
        """Hands in shards, ahead of the workers, and journals what they give. Raises what ended a shard that failed."""
        self._take_all(lambda: self._sharding.cut(self._shard_size()))

    def _take_all(self, cut: Callable[[], Shard | None]) -> None:
        while True:
            while len(self._pending) < AHEAD * self._workers.count and self._hand_in(cut()):
                continue
            if not self._pending:
                return
            done = self._workers.first_done(list(self._pending))
            shard = self._pending.pop(done)
            self._take(shard, self._workers.result(done))

    def _hand_in(self, shard: Shard | None) -> bool:
        if shard is None:
            return False
        given = {"order": self._order, "shard": shard, "first": shard.first, "last": shard.last}
        self._pending[self._workers.submit(self._task, given, amount=1 / AHEAD)] = shard
        return True

    def _take(self, shard: Shard, given: ShardRollouts) -> None:
        tally = self._sharding.take(shard, given)
        log = get_run_logger()
        if given.ready_s is not None:
            log.info("%s could ask the model after %.1f s", given.worker, given.ready_s)
        log.info("%s: %d rollouts: %d ok, %d unparseable, %d failed", given.worker, *tally.counts())
        if given.given_up:
            log.warning("%s was to end: others make what it had in hand", given.worker)

    def _shard_size(self) -> int:
        return shard_size(
            rate=self._progress.snapshot().rollouts_per_s,
            workers=self._workers.count,
            slots=self._slots,
            left=self._sharding.left,
        )


def shard_size(*, rate: float, workers: int, slots: int, left: int) -> int:
    """How many rollouts make a shard.

    `rate` is that of all workers, per second; `slots` are those of each; `left` are to be made. Smaller at the
    beginning, so that all workers begin at once, and towards the end, so that they end together.
    """
    each_s = max(SHARD_S, workers / MOST_SHARDS_PER_S)
    steady = max(rate / workers * each_s, WAVES * slots) if rate else slots
    share = max(left / (AHEAD * workers), slots / AHEAD)
    return max(1, int(min(steady, share, MOST_SHARD)))
