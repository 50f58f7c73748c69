"""Dask clusters for tests: real schedulers and workers on loopback, their blocks, and readers of runs' files."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from rollmill.inference.ports import PortReservation
from rollmill.inference.supervised_process import SupervisedProcess
from tests.flows.conftest import journal_lines, processes_of

ROLLOUTS_LINE = re.compile(r"(\S+:\d+): (\d+) rollouts: \d+ ok")
REGISTERED = "Registered to"


def save_block(environment: dict[str, str], scheduler: str, name: str) -> None:
    """Save a dask-cluster block at the server of an environment."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from blocks.cluster import DaskCluster

    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        DaskCluster(scheduler=scheduler).save(name, overwrite=True)


class Cluster:
    """A scheduler on loopback, and workers that tests start when they need them."""

    def __init__(self, folder: Path, environment: dict[str, str], port: int) -> None:
        self.folder = folder
        self.environment = environment
        self.address = f"tcp://127.0.0.1:{port}"
        self.processes = [self.dask("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]
        self.block = f"test-{uuid.uuid4().hex[:8]}"
        save_block(environment, self.address, self.block)

    def dask(self, kind: str, *arguments: str) -> SupervisedProcess:
        command = [sys.executable, "-m", "distributed.cli.dask_" + kind, *arguments]
        return SupervisedProcess(command, log=self.folder / f"{kind}.log", environment=self.environment)

    def start_worker(self, resources: str, *more: str, threads: int = 1) -> SupervisedProcess:
        """Start a worker in a separate folder, where relative paths do not resolve."""
        worker_folder = self.folder / "worker's"
        worker_folder.mkdir(exist_ok=True)
        options = (
            "--host",
            "127.0.0.1",
            "--nthreads",
            str(threads),
            "--no-dashboard",
            "--local-directory",
            str(worker_folder),
        )
        self.processes.append(self.dask("worker", self.address, *options, "--resources", resources, *more))
        return self.processes[-1]

    def end_workers(self) -> None:
        while len(self.processes) > 1:
            self.processes.pop().end()

    def end(self) -> None:
        for process in reversed(self.processes):
            process.end()


@contextmanager
def cluster_in(folder: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    port = PortReservation(None)
    cluster = Cluster(folder, environment, port.port)
    try:
        yield cluster
    finally:
        cluster.end()
        port.release()


def dask_process(worker: SupervisedProcess) -> psutil.Process:
    """Return the Dask worker, the child of its supervisor process."""
    [process] = psutil.Process(worker.pid).children()
    return process


def servers(folder: Path) -> list[psutil.Process]:
    """Return the processes of the scripted servers that replace vLLM."""
    processes = []
    for process in processes_of(str(folder)):
        with suppress(psutil.Error):
            if "vllm.entrypoints.cli.main" in process.cmdline():
                processes.append(process)
    return processes


def rollouts_by_worker(output: str) -> dict[str, int]:
    """Count rollouts by worker."""
    counts: dict[str, int] = {}
    for worker, count in ROLLOUTS_LINE.findall(output):
        counts[worker] = counts.get(worker, 0) + int(count)
    return counts


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Return a run's journal in order, without fields that differ between runs."""
    rows = [json.loads(line) for line in journal_lines(folder)]
    assert all(row.pop("latency_s") for row in rows)
    for row in rows:
        row.pop("tokens", None)  # offsets in the token file depend on the order in which rollouts end
    return sorted(rows, key=lambda row: (row["instance_id"], row["sample_id"]))


def count_in_log(log: Path, words: str) -> int:
    """Count a text's occurrences in a log."""
    return log.read_text().count(words)
