"""Making rollouts on workers: a canary, then shard after shard, each journaled here when it is back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from blocks.cluster import dask_cluster, given_up
from blocks.inference import server_config
from rollmill.errors import RollmillError
from rollmill.generation import canary
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.generation.shard import Shard, ShardRollouts, ShardRun, ShardScheduler
from rollmill.generation.worker_session import IsGivenUp, WorkerSpec, end_kept, run_shard
from rollmill.inference.multi_server import device_shares
from rollmill.inference.server import ServerConfig
from rollmill.terminal.stall_watch import new_stacks
from tasks.artifacts import track_progress
from tasks.errors import report_failure
from tasks.generation import MOST_SHARD, SHARD_S, judge_canary
from tasks.workers import Workers, workers_here, workers_of

if TYPE_CHECKING:
    from prefect_dask.task_runners import PrefectDaskFuture

AHEAD = 4
"""Shards in each worker's hands. They share its slots, in order: one's stragglers leave none idle."""
WAVES = 4
"""A shard is for every slot so many times, or more where that takes less than `SHARD_S`."""
MOST_SHARDS_PER_S = 4.0
"""Of all workers together: with many of them shards become longer, since Prefect notes several events of each."""


Opening = Callable[[Any, ShardRun, IsGivenUp], AbstractContextManager[RolloutSession[ShardRun]]]
"""Opens, on a worker, a session for a part of the run of an order, which is the first argument."""


class Placed(Protocol):
    """What a job's parameters say of workers."""

    @property
    def cluster_block(self) -> str | None:
        """Name of a dask-cluster block."""
        ...

    @property
    def gpu_workers(self) -> int | None:
        """How many here."""
        ...

    @property
    def server_block(self) -> str | None:
        """Name of a vllm-server block."""
        ...


def on_workers(parameters: Placed) -> bool:
    """Whether a job's rollouts are made on workers, not in its own process."""
    return parameters.cluster_block is not None or parameters.gpu_workers is not None


@contextmanager
def rollout_workers(parameters: Placed) -> Iterator[Workers]:
    """The workers of a cluster, or processes here; at the end what they have kept ends.

    Raises as `dask_cluster`, `workers_of` and `device_shares` do.
    """
    cluster = dask_cluster(parameters.cluster_block)
    if cluster is None:
        config = server_config(parameters.server_block) or ServerConfig()
        there = workers_here(device_shares(parameters.gpu_workers or 1, config), threads=AHEAD)
    else:
        there = workers_of(cluster)
    with there as workers:
        yield workers
        workers.everywhere(end_session)


async def end_session() -> None:
    """On a worker: ends the session that it keeps, unless a shard is being made."""
    await asyncio.to_thread(end_kept)


@task(name="rollouts", task_run_name="rollouts of {first}..{last}", cache_policy=NO_CACHE)
@report_failure
def make_shard(
    order: WorkerSpec, opening: Opening, shard: Shard, *, caller: str, first: int, last: int
) -> ShardRollouts:
    """Makes a shard on a worker, whose session, with its servers, stays for the next one of the order."""
    return run_shard(order, partial(opening, order), shard, caller=caller, is_given_up=given_up())


class ShardedRollouts:
    """Makes a run's rollouts on workers: this process alone writes.

    `opening` opens the session of a worker, with `slots`, as `order` says; both travel there.
    """

    def __init__(
        self,
        run: Run,
        progress: Progress,
        workers: Workers,
        *,
        opening: Opening,
        order: WorkerSpec,
        slots: int,
    ) -> None:
        self._run = run
        self._progress = progress
        self._workers = workers
        self._opening = opening
        self._order = order
        self._slots = slots
        self._caller = uuid.uuid4().hex
        self._sharding = ShardScheduler(run, progress)
        self._pending: dict[PrefectDaskFuture[ShardRollouts], Shard] = {}
        self._stacks_seen: set[Path] = set(new_stacks(run.directory, set()))

    def try_canary(self) -> None:
        """Makes a few rollouts on one worker, says what the rest will cost, and stops where it is not worth it."""
        chosen = canary.choose(self._run.problems(), self._run.problem_count)
        self._hand_in(self._sharding.cut_first(chosen, canary.CANARY_ROLLOUTS))
        self._take_all(self._sharding.cut_again)
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
            given = self._workers.result(done)
            self._take(self._pending.pop(done), given)
            if given.refused is not None:
                self._leave_out(done, given.worker, given.refused)

    def _hand_in(self, shard: Shard | None) -> bool:
        if shard is None:
            return False
        own = {"order": self._order, "opening": self._opening, "caller": self._caller}
        given = own | {"shard": shard, "first": shard.first, "last": shard.last}
        self._pending[self._workers.submit(make_shard, given, amount=1 / AHEAD)] = shard
        return True

    def _leave_out(self, done: PrefectDaskFuture[ShardRollouts], worker: str, error: RollmillError) -> None:
        """Goes on without a worker that cannot serve the model. Raises its error where there is no other."""
        if self._workers.leave_out(done):
            get_run_logger().warning("%s gets no more of this run: %s", worker, error)
        if not self._workers.any_left:
            raise error

    def _take(self, shard: Shard, given: ShardRollouts) -> None:
        tally = self._sharding.take(shard, given)
        log = get_run_logger()
        if given.ready_s is not None:
            log.info("%s could ask the model after %.1f s", given.worker, given.ready_s)
        log.info("%s: %d rollouts: %d ok, %d unparseable, %d failed", given.worker, *tally.counts())
        if given.given_up:
            log.warning("%s was to end: others make what it had in hand", given.worker)
        for stacks in new_stacks(self._run.directory, self._stacks_seen):
            log.warning("a worker made no progress and was ended, others make its part; its stacks: %s", stacks)

    def _shard_size(self) -> int:
        return shard_size(
            rate=self._progress.snapshot().rollouts_per_s,
            workers=self._workers.count,
            slots=self._slots,
            left=self._sharding.left,
        )


@contextmanager
def sharded(
    run: Run, progress: Progress, parameters: Placed, name: str, *, opening: Opening, order: WorkerSpec, slots: int
) -> Iterator[ShardedRollouts]:
    """What makes the run's rollouts on workers, which are there for the time of the block; see `ShardedRollouts`.

    `name` is the run's in the progress that is shown. Raises as `rollout_workers` does.
    """
    with rollout_workers(parameters) as workers, track_progress(progress, name):
        progress.start()
        yield ShardedRollouts(run, progress, workers, opening=opening, order=order, slots=slots)


def shard_size(*, rate: float, workers: int, slots: int, left: int) -> int:
    """How many rollouts make a shard.

    `rate` is that of all workers, per second; `slots` are those of each; `left` are to be made. Smaller at the
    beginning, so that all workers begin at once, and towards the end, so that they end together.
    """
    each_s = max(SHARD_S, workers / MOST_SHARDS_PER_S)
    steady = max(rate / workers * each_s, WAVES * slots) if rate else slots
    share = max(left / (AHEAD * workers), slots / AHEAD)
    return max(1, int(min(steady, share, MOST_SHARD)))
