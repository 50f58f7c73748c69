"""Workers of a real Dask cluster run neither Dask's profiler nor its diagnosis of the garbage collector."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import dask
import distributed
import pytest
from distributed import Client, Nanny, Scheduler, SpecCluster

import rollmill
from tasks import worker_guard
from tasks.worker_guard import guarded_workers, is_guarded
from tasks.workers import start_workers
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def client():
    """Yield a client of a cluster of two workers as a user starts it, with the profiler on."""
    options = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    workers = {number: {"cls": Nanny, "options": {**options, "nthreads": 1, "memory_limit": 0}} for number in range(2)}
    scheduler = {"cls": Scheduler, "options": {**options, "port": 0}}
    with SpecCluster(workers=workers, scheduler=scheduler) as cluster, Client(cluster) as client:
        yield client


def test_cluster_workers_and_their_replacements_are_guarded(client):
    assert list(client.run(is_guarded).values()) == [False, False]
    with guarded_workers(client):
        before = client.run(is_guarded)
        assert list(before.values()) == [True, True]
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        wait_until(lambda: len(now := client.scheduler_info()["workers"]) == 2 and now.keys() != before.keys())
        assert list(client.run(is_guarded).values()) == [True, True]


def test_scheduler_plugin_needs_no_project_import_and_is_removed(client):
    plugins = lambda dask_scheduler: list(dask_scheduler.worker_plugins.values())  # noqa: E731
    with guarded_workers(client):
        [plugin] = [each for each in client.run_on_scheduler(plugins) if b"DeadlockGuard" in each]
        assert b"tasks.worker_guard" not in plugin.replace(b"__module__", b"").split(b"DeadlockGuard")[0]
    assert not [each for each in client.run_on_scheduler(plugins) if b"DeadlockGuard" in each]


@pytest.mark.timeout(60)  # without a limit it would wait forever
def test_stopped_worker_does_not_block_the_others(client, monkeypatch):
    monkeypatch.setattr(worker_guard, "ANSWER_S", 1.0)
    stopped = next(iter(client.run(os.getpid).values()))
    with guarded_workers(client):
        os.kill(stopped, signal.SIGSTOP)
    with guarded_workers(client):
        pass
    os.kill(stopped, signal.SIGKILL)


def test_local_workers_never_start_the_profiler():
    with start_workers([{}, {}]) as workers:
        client = workers._runner.client
        assert list(client.run(is_guarded).values()) == [True, True]
        setting = lambda: dask.config.get("distributed.worker.profile.enabled")  # noqa: E731
        assert list(client.run(setting).values()) == [False, False]
        assert not distributed.gc._gc_diagnosis.enabled, "the scheduler is in this process"


def test_only_the_guard_reads_frames_of_other_threads():
    root = Path(rollmill.__file__).parents[1]
    files = [path for room in ("rollmill", "tasks", "blocks", "flows") for path in (root / room).rglob("*.py")]
    callers = [path for path in files if "_current_frames(" in path.read_text().replace("sys._current_frames()`", "")]
    assert [path.name for path in callers] == ["worker_guard.py"]
