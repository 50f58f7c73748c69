"""Training on a worker of a Dask cluster: real scheduler, real workers, real training."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from rollmill.serving.kept_process import KeptProcess
from rollmill.serving.ports import PortReservation
from rollmill.training.metrics import METRICS, read_metrics
from tests.flows.conftest import Job, processes_of, script, write_problems
from tests.training.made import CHATML, make_base, row, write_rows
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SAVE_BLOCK = "import sys; from blocks.cluster import DaskCluster; DaskCluster(scheduler=sys.argv[1]).save(sys.argv[2])"


class Cluster:
    """A scheduler on loopback, and workers that are started when they are wanted."""

    def __init__(self, folder: Path, environment: dict[str, str], port: int) -> None:
        self.folder = folder
        self.environment = environment
        self.address = f"tcp://127.0.0.1:{port}"
        self.processes = [self.dask("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]
        self.block = f"test-{uuid.uuid4().hex[:8]}"
        command = [sys.executable, "-c", SAVE_BLOCK, self.address, self.block]
        subprocess.run(command, env=environment, check=True, capture_output=True)

    def dask(self, kind: str, *arguments: str) -> KeptProcess:
        command = [sys.executable, "-m", "distributed.cli.dask_" + kind, *arguments]
        return KeptProcess(command, log=self.folder / f"{kind}.log", environment=self.environment)

    def start_worker(self, resources: str, *more: str, threads: int = 1) -> KeptProcess:
        """In a folder of its own: relative paths mean nothing there."""
        there = self.folder / "worker's"
        there.mkdir(exist_ok=True)
        own = ("--host", "127.0.0.1", "--nthreads", str(threads), "--no-dashboard", "--local-directory", str(there))
        self.processes.append(self.dask("worker", self.address, *own, "--resources", resources, *more))
        return self.processes[-1]

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


@pytest.fixture
def job(tmp_path: Path, stand_in: dict[str, str]) -> Job:
    make_base(tmp_path / "base", CHATML)
    write_rows(tmp_path / "train.jsonl", [row(number, "ab" * (number % 5 + 1)) for number in range(64)])
    return Job("train_lora", tmp_path, stand_in | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})


@pytest.fixture
def cluster(tmp_path: Path, job: Job) -> Iterator[Cluster]:
    with cluster_in(tmp_path / "cluster", job.environment) as made:
        yield made


def flags(output: str) -> list[str]:
    data = ["--model_path", "base", "--train_data", "train.jsonl", "--output_dir", output]
    small = ["--lora_r", "4", "--lora_dropout", "0.2", "--gradient_accumulation_steps", "1", "--save_steps", "10"]
    return [*data, *small, "--num_train_epochs", "6"]


def training(job: Job) -> list[psutil.Process]:
    """The processes that train."""
    found = []
    for process in processes_of(str(job.folder)):
        with suppress(psutil.Error):
            if "rollmill.training.worker" in process.cmdline():
                found.append(process)
    return found


def weights(job: Job, output: str) -> bytes:
    return (job.folder / output / "adapter_model.safetensors").read_bytes()


def steps(job: Job, output: str) -> int:
    return max((one.step for one in read_metrics(job.folder / output / METRICS)), default=0)


def test_killed_while_a_worker_trains_it_ends_as_if_nothing_had_happened(job: Job, cluster: Cluster) -> None:
    here = job.run(*flags("here"), timeout=200)
    assert here.returncode == 0, here.stderr
    assert re.search(r"train here: 192/192 steps, epoch 6\.00, loss \S+, \d+ tokens/s, 0 s left", here.stderr)

    cluster.start_worker("GPU=1")
    write_problems(job.folder / "held_out.jsonl", 4)
    evaluated = ["--held_out", "held_out.jsonl", "--serve", "adapter", *script()]
    there = [*flags("there"), "--cluster_block", cluster.block, *evaluated]
    process = job.start(*there)
    wait_until(lambda: steps(job, "there") >= 15 or process.poll() is not None, timeout=200)
    assert process.poll() is None, process.communicate()
    trainers = training(job)
    assert trainers
    assert not [one for one in trainers if process.pid in {parent.pid for parent in one.parents()}]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not training(job), timeout=20)
    reached = steps(job, "there")
    assert 15 <= reached < 192

    done = job.run(*there, timeout=200)
    assert done.returncode == 0, done.stderr + (job.folder / "cluster/worker.log").read_text()[-3000:]
    assert "train there: 192/192 steps" in done.stderr
    assert weights(job, "there") == weights(job, "here")
    assert json.loads(done.stdout)["adapter"] == "there"
    assert (job.folder / "there/README.md").exists()
    assert json.loads((job.folder / "there/evaluation.json").read_text())["before"]["problems"] == 4
    logs = [path.name for path in (job.folder / "logs").iterdir()]
    assert all(re.fullmatch(r"evaluation_vllm\..+-\d+\.log", name) for name in logs), "the worker's servers' alone"
    assert logs


def test_what_a_cluster_cannot_do_is_said_in_one_line(job: Job, cluster: Cluster) -> None:
    cluster.start_worker("MEMORY=8")
    there = [*flags("there"), "--cluster_block"]
    failed = job.run(*there, cluster.block, timeout=200)
    assert failed.returncode == 1
    assert f"no worker has GPU=1 ({cluster.address}: 1 workers, 0 with GPU): start one with" in failed.stderr
    assert "Traceback" not in failed.stderr
    cluster.end()
    failed = job.run(*there, cluster.block, timeout=200)
    assert failed.returncode == 1
    assert f"no Dask scheduler answers at {cluster.address}: start it (`dask scheduler`)" in failed.stderr
    assert "Traceback" not in failed.stderr
    failed = job.run(*there, "nobody", timeout=200)
    assert failed.returncode == 1
    assert "there is no block dask-cluster/nobody on the Prefect server" in failed.stderr


def test_a_mistake_is_told_by_the_worker_as_it_is_here(job: Job, cluster: Cluster) -> None:
    cluster.start_worker("GPU=1")
    (job.folder / "train.jsonl").write_text('{"messages": []}\n')
    failed = job.run(*flags("there"), "--cluster_block", cluster.block, timeout=200)
    assert failed.returncode == 1
    assert "no row of the train data can be used (1 unusable)" in failed.stderr
    assert "Traceback" not in failed.stderr
