"""What a job's parameters say of the processes that make its rollouts."""

from __future__ import annotations

from rollmill.config.parameter import parameter

CLUSTER_BLOCK = parameter(
    None,
    "Running",
    "Cluster block",
    "Name of a dask-cluster block: its workers serve the models and make the rollouts.",
    metavar="BLOCK",
)
"""`cluster_block: str | None` of a job; no part of what its run is."""

GPU_WORKERS = parameter(
    None,
    "Running",
    "GPU workers",
    "Processes here, each with servers and GPUs of its own; else this one, with one server.",
    ge=1,
)
"""`gpu_workers: int | None` of a job; no part of what its run is."""


def check_places(*, cluster_block: str | None, gpu_workers: int | None, own_port: int | None) -> None:
    """Raises `ValueError` where the places exclude each other; `own_port`: the one that an own server takes."""
    if cluster_block and gpu_workers:
        raise ValueError("give --cluster_block or --gpu_workers, not both: a cluster has workers of its own")
    if gpu_workers and gpu_workers > 1 and own_port is not None:
        raise ValueError(
            f"--model_port {own_port}: there are {gpu_workers} servers with --gpu_workers: leave it out, and each "
            "takes a free one"
        )
