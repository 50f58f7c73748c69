"""Generates rollouts on workers: first a canary, then shard by shard, each journaled in this process on return."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from blocks.cluster import dask_cluster, given_up
from blocks.services import find_services
from rollmill.errors import RollmillError
from rollmill.generation import canary
from rollmill.generation.concurrency import AUTO, PLANNED
from rollmill.generation.job import GenerationJob
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.shard import Shard, ShardRollouts
from rollmill.generation.worker_session import end_session_if_idle
from rollmill.inference.devices import use_line
from rollmill.terminal.stall_watch import new_stacks
from tasks.artifacts import track_progress
from tasks.errors import report_failure
from tasks.generation import MOST_SHARD, SHARD_S, judge_canary
from tasks.workers import Workers, connect_workers, start_workers

if TYPE_CHECKING:
    from prefect_dask.task_runners import PrefectDaskFuture

WAVES = 4
"""Rollouts per slot in one shard; more if these take less than `SHARD_S`."""
MOST_SHARDS_PER_S = 4.0
"""Of all workers together: with many workers shards become longer, since Prefect records several events of each."""


@contextmanager
def rollout_workers(job: GenerationJob[Any]) -> Iterator[Workers]:
    """Open the workers of a cluster, or processes on this machine; at the end, close the sessions that they keep.

    Raises as `dask_cluster`, `connect_workers` and the job's `worker_environments` do.
    """
    cluster = dask_cluster(job.parameters.cluster_block)
    if cluster is None:
        environments = job.worker_environments(find_services(job.parameters))
        running = start_workers(environments, threads=job.shards_at_once)
    else:
        running = connect_workers(cluster)
    with running as workers:
        yield workers
        workers.close_sessions(end_session)


async def end_session() -> None:
    """Close the session that this worker keeps, unless it is generating a shard."""
    await asyncio.to_thread(end_session_if_idle)


@task(name="rollouts", task_run_name="rollouts of {first}..{last}", cache_policy=NO_CACHE)
@report_failure
def make_shard(job: GenerationJob[Any], shard: Shard, *, caller: str, first: int, last: int) -> ShardRollouts:
    """Generate a shard on a worker, which keeps its session open for the job's next shard.

    Args:
        job: The job with absolute paths (`for_worker`).
        shard: The problems and the rollouts that are missing.
        caller: Unique id of the run's process.
        first: Number of the first problem, for the task's name.
        last: Number of the last problem, for the task's name.
    """
    return job.make_shard(shard, partial(find_services, job.parameters), caller=caller, is_given_up=given_up())


class ShardedRollouts:
    """Generates a run's rollouts on workers, which get the pickled job; only this process writes the journal."""

    def __init__(self, job: GenerationJob[Any], run: Run, progress: Progress, workers: Workers) -> None:
        """Prepare the scheduler of shards.

        Args:
            job: The generating job.
            run: Its opened run.
            progress: Counts the rollouts.
            workers: Generate the shards.
        """
        self._job = job
        self._worker_job = job.for_worker()
        self._run = run
        self._progress = progress
        self._workers = workers
        self._caller = uuid.uuid4().hex
        self._scheduler = job.scheduler(run, progress)
        self._pending: dict[PrefectDaskFuture[ShardRollouts], Shard] = {}
        self._notes: set[tuple[str, str]] = set()
        """(Worker, note) pairs that are logged already: each only once."""
        self._stacks_seen: set[Path] = set(new_stacks(run.directory, set()))

    def try_canary(self) -> None:
        """Generate a few rollouts on one worker, log the projected cost of the rest, and stop if not worth it."""
        chosen = canary.choose(self._run.problems(), self._run.problem_count)
        self._submit(self._scheduler.cut_canary(chosen, canary.CANARY_ROLLOUTS))
        self._take_all(self._scheduler.next_returned)
        judge_canary(self._run, chosen, slots=self._slots * self._workers.capacity)

    def make_all(self) -> None:
        """Submit shards ahead of the workers, and journal their results. Raises the error of a shard that failed."""
        self._take_all(lambda: self._scheduler.cut(self._shard_size()))

    def _take_all(self, cut: Callable[[], Shard | None]) -> None:
        while True:
            # Ahead of the workers, so that none is idle while its result is sent, but not all at once: a shard's size
            # depends on the rate and on the rest, and the pending shards of a worker are lost if it dies.
            while len(self._pending) < self._job.shards_ahead * self._workers.capacity and self._submit(cut()):
                continue
            if not self._pending:
                return
            done = self._workers.first_done(list(self._pending))
            rollouts = self._workers.result(done)
            # Journal before excluding the worker: it may have generated a part of the shard before it refused.
            self._take(self._pending.pop(done), rollouts)
            if rollouts.refused is not None:
                self._exclude(done, rollouts.worker, rollouts.refused)

    def _submit(self, shard: Shard | None) -> bool:
        if shard is None:
            return False
        parameters = {
            "job": self._worker_job,
            "caller": self._caller,
            "shard": shard,
            "first": shard.first,
            "last": shard.last,
        }
        # The concurrent shards of a worker together take 1 of the cluster's resource.
        self._pending[self._workers.submit(make_shard, parameters, amount=1 / self._job.shards_at_once)] = shard
        return True

    def _exclude(self, done: PrefectDaskFuture[ShardRollouts], worker: str, error: RollmillError) -> None:
        """Continue without a worker that cannot serve the model. Raises its error if no other is left."""
        if self._workers.exclude_worker_of(done):
            get_run_logger().warning("%s gets no more of this run: %s", worker, error)
        if not self._workers.any_left:
            raise error

    def _take(self, shard: Shard, rollouts: ShardRollouts) -> None:
        tally = self._scheduler.journal_results(shard, rollouts)
        log, worker = get_run_logger(), rollouts.worker
        if rollouts.ready_s is not None:
            where = f" on {use_line(rollouts.device)}" if rollouts.device else ""
            log.info("%s could ask the model after %.1f s%s", worker, rollouts.ready_s, where)
        log.info("%s: %d rollouts: %d ok, %d unparseable, %d failed", worker, *tally.counts())
        for note in rollouts.notes:
            if (worker, note) not in self._notes:
                self._notes.add((worker, note))
                log.warning("%s: %s", worker, note)
        if rollouts.given_up:
            log.warning("%s was to end: others make what it had in hand", worker)
        for stacks in new_stacks(self._run.directory, self._stacks_seen):
            log.warning("a worker made no progress and was ended, others make its part; its stacks: %s", stacks)

    @property
    def _slots(self) -> int:
        """Return the number of concurrent rollouts of each worker; an estimate while `auto` is searching."""
        if self._job.slots != AUTO:
            return self._job.slots
        return max(PLANNED, (self._progress.slots or 0) // self._workers.capacity)

    def _shard_size(self) -> int:
        return shard_size(
            rate=self._progress.snapshot().rollouts_per_s,
            workers=self._workers.capacity,
            slots=self._slots,
            ahead=self._job.shards_ahead,
            uncut=self._scheduler.left,
        )


@contextmanager
def rollouts_on_workers(job: GenerationJob[Any], run: Run, progress: Progress) -> Iterator[ShardedRollouts]:
    """Open workers while the block runs, to generate a job's rollouts on them. Raises as `rollout_workers` does."""
    with track_progress(progress, job.name), rollout_workers(job) as workers:
        progress.start()
        yield ShardedRollouts(job, run, progress, workers)


def shard_size(*, rate: float, workers: int, slots: int, ahead: int, uncut: int) -> int:
    """Return the number of rollouts of a shard.

    Smaller at the beginning, so that all workers start at once, and towards the end, so that they finish together.

    Args:
        rate: Rollouts per second, of all workers together.
        workers: Number of workers.
        slots: Concurrent rollouts of each worker.
        ahead: Pending shards of each worker.
        uncut: Rollouts that are in no shard yet.
    """
    # Prefect stores several events of each shard: with many workers a shard takes longer, to bound their rate.
    each_s = max(SHARD_S, workers / MOST_SHARDS_PER_S)
    # Without a rate yet, one rollout per slot: the first shards return soon, and give the rate.
    steady = max(rate / workers * each_s, WAVES * slots) if rate else slots
    # Near the end, equal parts of what is left, so that no worker gets a last long shard while others are idle.
    share = max(uncut / (ahead * workers), slots / ahead)
    return max(1, int(min(steady, share, MOST_SHARD)))
