"""Hanging work is detected: in the run's process it ends the run, on one of several workers only that worker."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from rollmill.inference.scripted import Script, ScriptedServer
from tests.flows.conftest import Job, journal_lines, processes_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STUCK = ("--env_name", "tests.flows.stuck_environment:StuckEnvironment", "--model_path", "m")
EPISODES = ("--num_episodes", "40", "--concurrency", "2", "--request_timeout", "5")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Script(model="m", completion="1", latency_s=0.1)) as server:
        yield server


def make_job(folder: Path, environment: dict[str, str]) -> Job:
    """Make a job whose processes can be distinguished from all others by an environment variable."""
    variables = {"ROLLMILL_TEST_STUCK": str(folder / "trap"), "MARK": str(folder)}
    return Job("collect_episodes", folder, environment | variables)


@pytest.fixture
def job(tmp_path: Path, stand_in: dict[str, str]) -> Job:
    return make_job(tmp_path, stand_in)


def flags(server: ScriptedServer, *more: str) -> list[str]:
    return [*STUCK, *EPISODES, "--base_url", server.base_url, *more]


def episodes(folder: Path) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in journal_lines(folder)]
    return sorted((row["instance_id"], row["sample_id"]) for row in rows if row["error"] is None)


def stacks(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("stalled.*.txt"))


@pytest.mark.parametrize("how", ["endless call", "deadlock"])
def test_blocked_worker_is_replaced(job: Job, server: ScriptedServer, how: str) -> None:
    (job.folder / "trap").write_text(how)
    done = job.run(*flags(server, "--gpu_workers", "2"), timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(set(episodes(job.folder))) == len(episodes(job.folder)) == 40
    assert "hang_forever" in stacks(job.folder)
    assert "a worker made no progress and was ended" in done.stderr
    assert not processes_of(str(job.folder))


def test_a_stopped_worker_is_replaced(job: Job, server: ScriptedServer) -> None:
    process = job.start(*flags(server, "--gpu_workers", "2"), DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="8s")
    wait_until(lambda: len(journal_lines(job.folder)) >= 4 or process.poll() is not None, timeout=200)
    assert process.poll() is None, process.communicate()
    workers = [
        child for child in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in str(child.cmdline())
    ]
    workers[0].send_signal(signal.SIGSTOP)
    _, output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert len(set(episodes(job.folder))) == len(episodes(job.folder)) == 40
    assert not processes_of(str(job.folder))


def test_run_without_another_worker_ends_and_can_be_continued(
    tmp_path: Path, stand_in: dict[str, str], server: ScriptedServer
) -> None:
    """Both cases run concurrently, since ending a run takes most of the time."""

    def ends(how: str) -> tuple[Job, str]:
        (tmp_path / how).mkdir()
        job = make_job(tmp_path / how, stand_in)
        (job.folder / "trap").write_text(how)
        stopped = job.run(*flags(server), timeout=300)
        assert stopped.returncode == 1
        return job, stopped.stderr

    hows = ["endless call", "interpreter lock held"]
    with ThreadPoolExecutor() as pool:
        for how, (job, output) in zip(hows, pool.map(ends, hows), strict=True):
            assert "Traceback" not in output
            assert "hang_forever" in stacks(job.folder)
            if how == "endless call":
                last = output.strip().splitlines()[-1]
                assert re.search(
                    r"no request, command or rollout has completed .* run the same command again to continue$", last
                )
            wait_until(lambda: not processes_of(str(job.folder)), timeout=20, every=0.3)  # noqa: B023
            done = job.run(*flags(server), timeout=300)
            assert done.returncode == 0, done.stderr
            assert len(set(episodes(job.folder))) == 40
