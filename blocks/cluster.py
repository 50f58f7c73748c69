"""The block of a Dask cluster whose workers have the GPUs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from prefect.blocks.core import Block
from pydantic import Field

from blocks.loading import load_block
from rollmill.errors import RunStoppedError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 10


class Offers(NamedTuple):
    """The workers of a cluster, and the amount of the resource that each has."""

    cluster: DaskCluster
    supplies: dict[str, float]
    """Amount of the resource by worker's address; 0 for none."""

    def suffices(self, amount: int) -> bool:
        """Return whether any worker has that amount."""
        return any(supply >= max(amount, 1) for supply in self.supplies.values())

    def describe(self) -> str:
        """Return one line with the number of workers and their amounts."""
        resource, having = self.cluster.resource, {name: had for name, had in self.supplies.items() if had > 0}
        named = ": " + ", ".join(f"{name} {had:g}" for name, had in having.items()) if having else ""
        return f"{self.cluster.scheduler}: {len(self.supplies)} workers, {len(having)} with {resource}{named}"


class DaskCluster(Block):
    """A running Dask cluster; its workers need this project and see this machine's files.

    With `--cluster_block NAME` a flow runs its work that needs GPUs on these workers.
    """

    _block_type_name = "Dask cluster"
    _block_type_slug = "dask-cluster"
    _description = "A running Dask cluster, whose workers have the GPUs."

    scheduler: str = Field(
        description="Address of the scheduler, such as tcp://host:8786.", pattern=r"^[a-z]+://[^/\s]+:\d+$"
    )
    resource: str = Field(
        default="GPU",
        min_length=1,
        description="What workers call their GPUs: one started with `dask worker --resources GPU=1` has one.",
    )

    def check(self) -> str:
        """Return the numbers of workers, all and with the resource. Raises `RunStoppedError` without a scheduler."""
        from distributed import Client

        try:
            with Client(self.scheduler, timeout=CONNECT_S, set_as_default=False) as client:
                return self.offers(client).describe()
        except OSError as error:
            raise self.no_answer(error) from error

    def offers(self, client: Client) -> Offers:
        """Return the current workers and their amounts of the resource."""
        workers = client.scheduler_info()["workers"]
        return Offers(self, {name: facts["resources"].get(self.resource, 0) for name, facts in workers.items()})

    def no_worker(self, offers: Offers, amount: int) -> str:
        """Return the error message for when none of its workers has that amount."""
        resource = f"{self.resource}={max(amount, 1)}"
        return (
            f"no worker has {resource} ({offers.describe()}): "
            f"start one with `dask worker {self.scheduler} --resources {resource}`, then run the same command again "
            "to continue"
        )

    def no_answer(self, error: OSError) -> RunStoppedError:
        """Return the error for when its scheduler cannot be reached."""
        return RunStoppedError(
            f"no Dask scheduler answers at {self.scheduler}: start it (`dask scheduler`), or correct the address "
            "in the dask-cluster block",
            details=str(error),
        )


def dask_cluster(name: str | None) -> DaskCluster | None:
    """Return a saved `DaskCluster`; None for no name. Raises `InputError` if there is no such block."""
    return None if name is None else load_block(DaskCluster, name)


def given_up() -> Callable[[], bool] | None:
    """Return a function that tells whether the current Dask task was cancelled or its worker is closing; else None.

    None outside of Dask workers. A scheduler cancels a task when its client has disconnected, for whatever reason.
    """
    distributed = sys.modules.get("distributed")  # imported in every worker
    if distributed is None:
        return None
    try:
        worker = distributed.get_worker()
    except ValueError:
        return None
    key = worker.get_current_task()

    def is_given_up() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state != "executing" or worker.status.name not in ("running", "paused")

    return is_given_up
