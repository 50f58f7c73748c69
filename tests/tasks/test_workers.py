"""Local workers whose process is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import dask.config
import distributed  # noqa: F401  # its defaults come first, or they would go with the setting of the test
import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.testing.utilities import prefect_test_harness

from rollmill.errors import RunStoppedError
from tasks import workers as module
from tasks.workers import Workers, start_workers

pytestmark = pytest.mark.slow


@task(cache_policy=NO_CACHE)
def die_once(note: Path, sleep_s: float) -> str:
    """Kill the worker the first time; the second time, take a while."""
    if not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(sleep_s)
    return "done"


@flow
def run_task(note: Path, sleep_s: float = 0.0) -> str:
    with start_workers([{}]) as workers:
        future = workers.submit(die_once, {"note": note, "sleep_s": sleep_s})
        return workers.result(workers.first_done([future]))


def test_killed_worker_restarts_and_runs_its_task_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default Dask ends the nanny of a worker that does not reconnect in time."""
    monkeypatch.setattr(module, "RESTART_S", 20.0)
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10 ms"}), prefect_test_harness():
        assert run_task(tmp_path / "note") == "done"


def test_run_stops_if_no_worker_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "note"
    monkeypatch.setattr(module, "RESTART_S", 0.0)
    monkeypatch.setattr(Workers, "_can_work", lambda _: not killed.exists())
    with prefect_test_harness(), pytest.raises(RunStoppedError, match="no worker process here has started again"):
        run_task(killed, sleep_s=60)
