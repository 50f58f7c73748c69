"""Training on a worker of a Dask cluster: real scheduler, real workers, real training."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rollmill.jobs.training.metrics import METRICS, read_metrics
from tests.flows.clusters import Cluster, cluster_in
from tests.flows.conftest import Job, processes_of, script, write_problems
from tests.jobs.training.tiny_models import CHATML, make_base, row, write_rows
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def job(tmp_path: Path, stand_in: dict[str, str]) -> Job:
    make_base(tmp_path / "base", CHATML)
    write_rows(tmp_path / "train.jsonl", [row(number, "ab" * (number % 5 + 1)) for number in range(64)])
    return Job("train_lora", tmp_path, stand_in | SMALL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, stand_in: dict[str, str]) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("cluster"), stand_in | SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def with_gpu(cluster: Cluster) -> Cluster:
    """The cluster with a worker that has a GPU."""
    cluster.start_worker("GPU=1")
    return cluster


def flags(output: str) -> list[str]:
    data = ["--model_path", "base", "--train_data", "train.jsonl", "--output_dir", output]
    small = ["--lora_r", "4", "--lora_dropout", "0.2", "--gradient_accumulation_steps", "1", "--save_steps", "10"]
    return [*data, *small, "--num_train_epochs", "6"]


def training(job: Job) -> list[psutil.Process]:
    """Return the training processes."""
    processes = []
    for process in processes_of(str(job.folder)):
        with suppress(psutil.Error):
            if "rollmill.jobs.training.worker" in process.cmdline():
                processes.append(process)
    return processes


def weights(job: Job, output: str) -> bytes:
    return (job.folder / output / "adapter_model.safetensors").read_bytes()


def steps(job: Job, output: str) -> int:
    return max((item.step for item in read_metrics(job.folder / output / METRICS)), default=0)


def test_run_killed_during_training_on_a_worker_resumes_to_the_same_result(job: Job, with_gpu: Cluster) -> None:
    local = job.run(*flags("here"), timeout=200)
    assert local.returncode == 0, local.stderr
    assert re.search(r"train here: 192/192 steps, epoch 6\.00, loss \S+, \d+ tokens/s, 0 s left", local.stderr)

    write_problems(job.folder / "held_out.jsonl", 4)
    evaluated = ["--held_out", "held_out.jsonl", "--serve", "adapter", *script()]
    remote = [*flags("there"), "--cluster_block", with_gpu.block, *evaluated]
    process = job.start(*remote)
    wait_until(lambda: steps(job, "there") >= 15 or process.poll() is not None, timeout=200)
    assert process.poll() is None, process.communicate()
    trainers = training(job)
    assert trainers
    assert not [item for item in trainers if process.pid in {parent.pid for parent in item.parents()}]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not training(job), timeout=20)
    reached = steps(job, "there")
    assert 15 <= reached < 192

    done = job.run(*remote, timeout=200)
    assert done.returncode == 0, done.stderr + (with_gpu.folder / "worker.log").read_text()[-3000:]
    assert "train there: 192/192 steps" in done.stderr
    assert weights(job, "there") == weights(job, "here")
    assert json.loads(done.stdout)["adapter"] == "there"
    assert (job.folder / "there/README.md").exists()
    assert json.loads((job.folder / "there/evaluation.json").read_text())["before"]["problems"] == 4
    logs = [path.name for path in (job.folder / "logs").iterdir()]
    assert all(re.fullmatch(r"evaluation_vllm\..+-\d+\.log", name) for name in logs), "the worker's servers' alone"
    assert logs


def test_mistakes_on_a_worker_give_the_same_message_as_locally(job: Job, with_gpu: Cluster) -> None:
    (job.folder / "train.jsonl").write_text('{"messages": []}\n')
    failed = job.run(*flags("there"), "--cluster_block", with_gpu.block, timeout=200)
    assert failed.returncode == 1
    assert "no row of the train data can be used (1 unusable)" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_missing_cluster_resources_are_one_line(job: Job, cluster: Cluster) -> None:
    """Must run last: it ends the cluster of the other tests."""
    cluster.end_workers()
    cluster.start_worker("MEMORY=8")
    remote = [*flags("there"), "--cluster_block"]
    failed = job.run(*remote, cluster.block, timeout=200)
    assert failed.returncode == 1
    assert f"no worker has GPU=1 ({cluster.address}: 1 workers, 0 with GPU): start one with" in failed.stderr
    assert "Traceback" not in failed.stderr
    cluster.end()
    ended, missing = job.fail_each([*remote, cluster.block], [*remote, "nobody"])
    assert (ended[0], missing[0]) == (1, 1)
    assert f"no Dask scheduler answers at {cluster.address}: start it (`dask scheduler`)" in ended[1]
    assert "there is no block dask-cluster/nobody on the Prefect server" in missing[1]
