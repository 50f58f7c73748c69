"""Dask workers that run many tasks: a cluster's, or processes on this machine."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from prefect.tasks import Task

from blocks.cluster import CONNECT_S, DaskCluster
from rollmill.errors import RunStoppedError
from rollmill.inference.ports import LOOPBACK
from rollmill.terminal.interruption import call_within
from rollmill.terminal.interruption import look as raise_if_interrupted
from tasks import worker_process
from tasks.cluster import PATIENCE_S, POLL_S

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

_log = logging.getLogger(__name__)

_DASK = "distributed"
RESTART_S = 300.0
"""Seconds for a local process to restart: its imports alone take minutes on an overloaded machine."""
_CLOSE_S = 60.0
"""Seconds for all workers to close their sessions, which ends their servers."""

R = TypeVar("R")


class Workers:
    """Submits tasks to Dask workers, and keeps track of the workers that can run them."""

    def __init__(self, runner: DaskTaskRunner, cluster: DaskCluster | None) -> None:
        self._runner = runner
        self._cluster = cluster
        self._last_could_work = time.monotonic()
        # Time of the last query, and the amount of the resource by worker's address.
        self._cached_supplies: tuple[float, dict[str, float]] = (-math.inf, {})
        # Addresses of workers that must not get more tasks.
        self._excluded: set[str] = set()
        # Running task -> addresses of the only workers that may run it, if it was submitted after an exclusion.
        self._allowed_workers: dict[PrefectDaskFuture[Any], list[str]] = {}

    @property
    def capacity(self) -> int:
        """Return how many tasks that take 1 of the resource run at once, at least 1; cached for `POLL_S`.

        A local process counts as 1, also with several threads: its further threads only start the next task early.
        """
        return max(1, int(sum(self._available().values())))

    def _available(self) -> dict[str, float]:
        """Return the amount of the resource of each worker, by address, without excluded ones.

        Cached for `POLL_S`, since a large cluster takes time to answer.
        """
        now = time.monotonic()
        if now - self._cached_supplies[0] > POLL_S:
            self._cached_supplies = (now, self._query_supplies())
        supplies = self._cached_supplies[1]
        return {address: amount for address, amount in supplies.items() if address not in self._excluded and amount > 0}

    def _query_supplies(self) -> dict[str, float]:
        """Return each worker's amount of the resource by address, excluded ones too; 1 for a local process."""
        if self._cluster is not None:
            return self._cluster.offers(self._runner.client).supplies
        return dict.fromkeys(self._runner.client.scheduler_info()["workers"], 1.0)

    def submit(self, task: Task[..., R], parameters: dict[str, Any], *, amount: float = 1) -> PrefectDaskFuture[R]:
        """Submit a task; it starts when a worker of the cluster has that amount of the resource free.

        Local processes have no resources: there a task takes a thread, and `amount` has no effect.
        """
        from dask.base import annotate

        restrictions: dict[str, Any] = {"resources": {self._cluster.resource: amount}} if self._cluster else {}
        if self._excluded:
            # Dask has no way to exclude a worker, only to list those that may run a task. Workers that join later get
            # the tasks that are submitted after that. If the list is empty, `_check_workers` stops the run.
            restrictions["workers"] = list(self._available())
        with annotate(**restrictions):
            future = self._runner.submit(task, parameters)
        if self._excluded:
            self._allowed_workers[future] = restrictions["workers"]
        return future

    def exclude_worker_of(self, future: PrefectDaskFuture[Any]) -> bool:
        """Exclude the worker that ran this task; return False if that worker is excluded already, or has left."""
        done = future.wrapped_future
        holders = self._runner.client.who_has([done])  # type: ignore[no-untyped-call]
        newly_excluded = set(holders[done.key]) - self._excluded
        self._excluded |= newly_excluded
        return bool(newly_excluded)

    @property
    def any_left(self) -> bool:
        """Return whether any worker is not excluded."""
        return bool(self._available())

    def close_sessions(self, close_session: Callable[[], Awaitable[None]]) -> None:
        """Call `close_session` on every worker and wait, at most `_CLOSE_S`.

        Ignores workers that cannot be reached or cannot import the function; warns if some do not answer in time.
        """
        try:
            call_within(_CLOSE_S, partial(self._runner.client.run, close_session, on_error="ignore"))
        except TimeoutError as error:
            _log.warning("not every worker has closed its session of this run, which may have a server: %s", error)

    def first_done(self, futures: Sequence[PrefectDaskFuture[R]]) -> PrefectDaskFuture[R]:
        """Wait for the first of the futures that is done, and return it.

        Raises `RunStoppedError` if no worker could run a task for `PATIENCE_S` (local processes: `RESTART_S`), or if
        all workers that one of the submitted tasks may run on have left.
        """
        from distributed import TimeoutError as DaskTimeoutError
        from distributed import wait

        while True:
            raise_if_interrupted()
            for future in futures:
                if future.wrapped_future.done():
                    self._allowed_workers.pop(future, None)
                    return future
            try:
                with self._runner.client.as_current():
                    wait([future.wrapped_future for future in futures], timeout=POLL_S, return_when="FIRST_COMPLETED")
            except DaskTimeoutError:
                self._check_workers()

    def result(self, future: PrefectDaskFuture[R]) -> R:
        """Return a task's result or raise its error. Raises `RunStoppedError` if its worker died."""
        # Prefect returns a task's own failure as a state, so that to Dask it has finished.
        lost = future.wrapped_future.status != "finished"
        try:
            return future.result()
        except Exception as error:
            if not lost:
                raise
            where = f"the Dask cluster at {self._cluster.scheduler}" if self._cluster else "this machine"
            raise RunStoppedError(
                f"the workers of {where} lost a task ({type(error).__name__}: {str(error)[:300]}): memory may have run "
                "out, or a cluster's worker has another version of this project; fix this, then run the same command "
                "again to continue"
            ) from error

    def _check_workers(self) -> None:
        """Raise `RunStoppedError` as `first_done` does."""
        available = self._available()
        if any(available.keys().isdisjoint(allowed) for allowed in self._allowed_workers.values()):
            raise RunStoppedError(
                f"the workers that could run a task have left, and {', '.join(self._excluded)} cannot: run the same "
                "command again to continue"
            )
        if self._can_work():
            self._last_could_work = time.monotonic()
        elif time.monotonic() - self._last_could_work > (RESTART_S if self._cluster is None else PATIENCE_S):
            raise RunStoppedError(self._no_worker())

    def _can_work(self) -> bool:
        """Return whether any worker is connected that has the resource.

        Excluded ones count, too: the caller of `exclude_worker_of` ends the run when all are excluded.
        """
        if self._cluster is None:
            return bool(self._query_supplies())
        return self._cluster.offers(self._runner.client).suffices(1)

    def _no_worker(self) -> str:
        """Return the error message for when no worker has returned in time."""
        if self._cluster is None:
            return (
                f"no worker process here has started again in {RESTART_S:.0f} s: memory may have run out; fix "
                "this, then run the same command again to continue"
            )
        return self._cluster.no_worker(self._cluster.offers(self._runner.client), 1)


@contextmanager
def connect_workers(cluster: DaskCluster) -> Iterator[Workers]:
    """Connect to a cluster's workers that have its resource. Raises `RunStoppedError` if no scheduler answers."""
    from prefect_dask.task_runners import DaskTaskRunner

    from tasks.worker_guard import guarded_workers

    with DaskTaskRunner(address=cluster.scheduler, client_kwargs={"timeout": CONNECT_S}) as runner:
        try:
            runner.client  # noqa: B018  # connects
        except OSError as error:
            raise cluster.no_answer(error) from error
        with guarded_workers(runner.client):
            yield Workers(runner, cluster)


@contextmanager
def start_workers(environments: Sequence[Mapping[str, str]], *, threads: int = 1) -> Iterator[Workers]:
    """Start a worker process for each environment. They end with the block, and with this process.

    Each environment's variables override this process's; `threads` is the number of concurrent tasks of a process.
    """
    import dask.config
    from distributed import Scheduler, SpecCluster
    from distributed.gc import disable_gc_diagnosis
    from prefect_dask.task_runners import DaskTaskRunner

    # No memory limit: Dask's default is the machine's memory divided by the number of workers, and its nanny kills a
    # worker above the limit.
    common: dict[str, Any] = {"host": LOOPBACK, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    options = {**common, "nthreads": threads, "memory_limit": 0}
    defaults = {
        "OMP_NUM_THREADS": _omp_threads(len(environments)),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    # The preload installs the `DeadlockGuard` in each worker. It is not unregistered at the end, as on a cluster: Dask
    # would log errors for workers that an interruption has ended already.
    options["preload"] = [worker_process.__name__]
    nanny_class = worker_process.nanny_class()
    spec = {
        number: {"cls": nanny_class, "options": {**options, "env": defaults | dict(environment)}}
        for number, environment in enumerate(environments)
    }
    scheduler = {"cls": Scheduler, "options": {**common, "port": 0}}
    # A worker that died may take longer to restart than the 15 s after which Dask would end its nanny, and the run
    # would wait for it forever.
    settings = {"distributed.worker.profile.enabled": False, "distributed.deploy.lost-worker-timeout": "1 hour"}
    configuration = dask.config.set(settings)  # workers inherit it
    with _log_level(logging.WARNING), configuration, SpecCluster(workers=spec, scheduler=scheduler) as cluster:
        disable_gc_diagnosis(force=True)  # the scheduler in this process has turned it on
        with DaskTaskRunner(cluster=cluster) as runner:
            yield Workers(runner, None)
        logging.getLogger(_DASK).setLevel(logging.ERROR)  # Dask warns of processes that end slowly


@contextmanager
def _log_level(level: int) -> Iterator[None]:
    """Set the level of Dask's logger while the block runs, to keep messages about connections out of the log."""
    logger = logging.getLogger(_DASK)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def _omp_threads(processes: int) -> str:
    """Return the number of OpenMP threads per worker process (Dask's default is 1)."""
    return os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // processes))
