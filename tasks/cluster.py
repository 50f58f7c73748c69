"""Runs one Prefect task on a worker of a Dask cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from prefect.tasks import Task

from blocks.cluster import CONNECT_S, DaskCluster
from rollmill.errors import RunStoppedError
from rollmill.terminal.interruption import look as raise_if_interrupted

if TYPE_CHECKING:
    from distributed import Client
    from prefect_dask.task_runners import PrefectDaskFuture

POLL_S = 2.0
"""Seconds between two queries of the scheduler."""
PATIENCE_S = 20.0
"""Seconds that a cluster may be without a worker that could run the task."""

R = TypeVar("R")


def run_on_cluster(cluster: DaskCluster, task: Task[..., R], parameters: dict[str, Any], *, amount: int) -> R:
    """Run a task to its end on a worker that has the amount of the cluster's resource, waiting if all are busy.

    The cluster cancels the task when this process ends. Raises `RunStoppedError` if no scheduler answers, no worker has
    that amount, or the cluster loses the task.

    Args:
        cluster: The cluster.
        task: The task.
        parameters: The task's, by name.
        amount: How much of the cluster's resource the task takes.
    """
    from dask.base import annotate
    from prefect_dask.task_runners import DaskTaskRunner

    from tasks.worker_guard import guarded_workers

    runner = DaskTaskRunner(address=cluster.scheduler, client_kwargs={"timeout": CONNECT_S})
    with runner:
        try:
            client = runner.client
        except OSError as error:
            raise cluster.no_answer(error) from error
        with guarded_workers(client):
            with annotate(resources={cluster.resource: amount}):
                future = runner.submit(task, parameters)
            _wait(cluster, client, future, amount)
            return _result(cluster, future)


def _wait(cluster: DaskCluster, client: Client, future: PrefectDaskFuture[Any], amount: int) -> None:
    """Wait for the task's end. Raises `RunStoppedError` if no worker could run it for `PATIENCE_S`.

    Args:
        cluster: The cluster.
        client: A client of it.
        future: The task's.
        amount: How much of the cluster's resource the task takes.
    """
    last_could_work = time.monotonic()
    while not future.wrapped_future.done():
        raise_if_interrupted()
        offers = cluster.offers(client)
        if offers.suffices(amount):
            last_could_work = time.monotonic()
        elif time.monotonic() - last_could_work > PATIENCE_S:
            raise RunStoppedError(cluster.no_worker(offers, amount))
        future.wait(POLL_S)


def _result(cluster: DaskCluster, future: PrefectDaskFuture[R]) -> R:
    """Return what the task returned, or raise what it raised."""
    # Prefect returns a task's own failure as a state, so that to Dask it has finished.
    lost = future.wrapped_future.status != "finished"
    try:
        return future.result()
    except Exception as error:
        if not lost:
            raise
        raise RunStoppedError(
            f"the Dask cluster at {cluster.scheduler} lost the task ({type(error).__name__}: {str(error)[:300]}): "
            "its workers need this project in the same version; fix this, then run the same command again to continue"
        ) from error
