"""Rejection sampling on several workers: real scheduler, real workers, each with a server of its own."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from rollmill.generation.job import GenerationJob
from tests.flows.clusters import (
    REGISTERED,
    ROLLOUTS_LINE,
    Cluster,
    cluster_in,
    count_in_log,
    dask_process,
    rollouts_by_worker,
    rows_in,
    save_block,
    servers,
)
from tests.flows.conftest import Job, journal_lines, script, write_problems
from tests.flows.hosts import Host, Network, network
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BLOCK = "test-gpus"
BASE = ("--model_path", "scripted", "--model_name", "m", "--dataset", "problems.jsonl", "--num_rollout", "4")


@pytest.fixture
def job(tmp_path: Path, stand_in: dict[str, str]) -> Job:
    write_problems(tmp_path / "problems.jsonl", 50)
    return Job("reject_sampling", tmp_path, stand_in | {"MARK": str(tmp_path)})


@pytest.fixture
def cluster(tmp_path: Path, job: Job) -> Iterator[Cluster]:
    with cluster_in(tmp_path / "cluster", job.environment) as running:
        yield running


def flags(output: str, *more: str, latency_s: float = 0.3) -> list[str]:
    return [*BASE, "--output_dir", output, "--concurrency", "2", *script(latency_s=latency_s), *more]


def hosts_with_rollouts(printed: str) -> set[str]:
    """Return the hosts whose rollouts are journaled."""
    return {worker.partition(":")[0] for worker in rollouts_by_worker(printed)}


def wait_for_rows(job: Job, process: subprocess.Popen[str], count: int) -> None:
    """Wait until the journal of a running job has that many lines."""
    folder = job.folder / "there"
    wait_until(lambda: len(journal_lines(folder)) >= count or process.poll() is not None, timeout=300)
    assert process.poll() is None, process.communicate()


def test_run_with_killed_flow_and_worker_resumes_to_the_same_result(job: Job, cluster: Cluster) -> None:
    local_run = job.run(*flags("here", latency_s=0.01), timeout=300)
    assert local_run.returncode == 0, local_run.stderr

    workers = [cluster.start_worker("GPU=1", "--no-nanny", threads=4) for _ in range(2)]
    wait_until(lambda: count_in_log(cluster.folder / "worker.log", REGISTERED) == 2, timeout=200)
    process = job.start(*flags("there", "--cluster_block", cluster.block))
    wait_for_rows(job, process, 40)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: servers(job.folder) == [], timeout=60, every=0.3)
    before = journal_lines(job.folder / "there")

    process = job.start(*flags("there", "--cluster_block", cluster.block))
    wait_for_rows(job, process, len(before) + 60)
    dask_process(workers[0]).send_signal(signal.SIGKILL)
    wait_until(lambda: len(servers(job.folder)) <= 1, timeout=60, every=0.3)
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert journal_lines(job.folder / "there")[: len(before)] == before
    assert rows_in(job.folder / "there") == rows_in(job.folder / "here")
    assert sum(rollouts_by_worker(printed).values()) == 200 - len(before)
    assert "could ask the model after" in printed
    assert "m: 200/200 rollouts" in printed
    assert servers(job.folder) == []  # the run is over, the other worker is there


def test_each_local_worker_has_its_own_server(job: Job) -> None:
    process = job.start(*flags("there", "--gpu_workers", "2", "--no_canary", latency_s=0.2))
    wait_until(lambda: len(servers(job.folder)) == 2 or process.poll() is not None, timeout=200, every=0.3)
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert len(rollouts_by_worker(printed)) == 2
    assert sum(rollouts_by_worker(printed).values()) == len(rows_in(job.folder / "there")) == 200
    assert servers(job.folder) == []


def test_worker_that_cannot_serve_is_excluded(job: Job) -> None:
    with cluster_in(job.folder / "cluster", job.environment) as cluster:
        arguments = flags("there", "--cluster_block", cluster.block, latency_s=0.05)
        cluster.start_worker("GPU=1", threads=4)
        wait_until(lambda: count_in_log(cluster.folder / "worker.log", REGISTERED) == 1, timeout=200)
        cluster.environment = cluster.environment | {"ROLLMILL_VLLM_PYTHON": "/nowhere/python"}
        cluster.start_worker("GPU=1", threads=4)
        wait_until(lambda: count_in_log(cluster.folder / "worker.log", REGISTERED) == 2, timeout=200)
        done = job.run(*arguments, "--no_canary", timeout=300)
        assert done.returncode == 0, done.stderr
        [left_out] = re.findall(r"(\S+:\d+) gets no more of this run: (.*)", done.stderr)
        assert "/nowhere/python" in left_out[1]
        assert len(rows_in(job.folder / "there")) == 200
        shards = [int(count) for worker, count in ROLLOUTS_LINE.findall(done.stderr) if worker == left_out[0]]
        assert 1 <= len(shards) <= GenerationJob.shards_ahead, "only the shards that it had already received"
        assert sum(shards) == 0
        assert sum(rollouts_by_worker(done.stderr).values()) == 200


DASK = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s",
}
"""Seconds without contact after which a host counts as lost."""
LOOK = "import sys, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=10)"


class HubJob(Job):
    """Runs a flow on the hub."""

    prefix: list[str]

    def command(self, *arguments: str, python: str = sys.executable) -> list[str]:
        return [*self.prefix, *super().command(*arguments)]


@contextmanager
def team(folder: Path, environment: dict[str, str]) -> Iterator[tuple[Network, HubJob, str]]:
    """Run a Prefect server and a Dask scheduler on the hub, a worker on each other host; yield hosts, job and block."""
    with network(folder, "one", "two") as hosts, ExitStack() as stack:
        hub = hosts.hub
        home = folder / "prefect"
        scheduler = f"tcp://{hub.address}:8786"
        save_block(environment, scheduler, BLOCK)
        copy_database(Path(environment["PREFECT_HOME"]), home)
        no_proxy = f"{hub.address},127.0.0.1,localhost"
        options = {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://{hub.address}:4200/api", "MARK": str(folder)}
        environment = {**environment, **options, **DASK, "NO_PROXY": no_proxy, "no_proxy": no_proxy}

        def start(host: Host, name: str, *command: str) -> None:
            process = host.start(*command, log=folder / f"{name}.log", environment=environment)
            stack.callback(process.end)

        server = ("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--log-level", "error")
        start(hub, "server", *server, "--host", hub.address, "--port", "4200")
        plain = ("--no-dashboard", "--host")
        start(hub, "scheduler", "-m", "distributed.cli.dask_scheduler", *plain, hub.address, "--port", "8786")
        for host in hosts.others.values():
            worker = ("-m", "distributed.cli.dask_worker", scheduler, *plain, host.address)
            more = ("--nthreads", "4", "--resources", "GPU=1", "--local-directory", str(folder / host.name))
            start(host, f"worker-{host.name}", *worker, *more)
        job = HubJob("reject_sampling", folder, environment)
        job.prefix = hub.prefix
        look = [*hub.prefix, sys.executable, "-c", LOOK, f"http://{hub.address}:4200/api/health"]
        wait_until(lambda: subprocess.run(look, capture_output=True).returncode == 0, timeout=200, every=0.5)
        for name in hosts.others:
            wait_until(lambda name=name: count_in_log(folder / f"worker-{name}.log", REGISTERED) == 1, timeout=200)
        yield hosts, job, BLOCK


def copy_database(home: Path, to: Path) -> None:
    """Copy Prefect's database with its tables, since creating them takes long."""
    to.mkdir()
    with (
        closing(sqlite3.connect(home / "prefect.db")) as source,
        closing(sqlite3.connect(to / "prefect.db")) as target,
    ):
        source.backup(target)


def test_run_completes_when_a_host_is_disconnected(tmp_path: Path, stand_in: dict[str, str]) -> None:
    write_problems(tmp_path / "problems.jsonl", 60)
    with team(tmp_path, stand_in) as (hosts, job, block):
        results, log = tmp_path / "results", tmp_path / "flow.log"
        command = job.command(
            *flags("results", "--cluster_block", block, "--no_canary")
        )  # without a canary both workers start at once
        with log.open("w") as output:
            process = subprocess.Popen(command, cwd=tmp_path, env=job.environment, stdout=output, stderr=output)
        both = {"one", "two"}
        wait_until(lambda: hosts_with_rollouts(log.read_text()) == both or process.poll() is not None, timeout=300)
        assert process.poll() is None, log.read_text()
        hosts.cut_off("two")
        assert len(journal_lines(results)) < 240
        assert process.wait(300) == 0, log.read_text()
        rows = rows_in(results)
        assert [(row["instance_id"], row["sample_id"]) for row in rows] == [
            (f"p{number}", sample_id) for number in sorted(range(60), key=str) for sample_id in range(4)
        ]
        assert [row["error"] for row in rows] == [None] * 240
        assert sum(rollouts_by_worker(log.read_text()).values()) == 240
        assert "ok 240 + unparseable 0 + failed 0 + missing 0" in (results / "m/statistics.txt").read_text()
        # The worker on the disconnected host notices it, too, and ends its server.
        wait_until(lambda: servers(tmp_path) == [], timeout=120, every=0.5)
