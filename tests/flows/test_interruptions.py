"""Runs survive kill -9, SIGTERM, Ctrl-C, a full disk, a second process, a dying server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from rollmill.inference.scripted import Script, ScriptedServer
from tests.flows.conftest import Job, journal_lines, processes_of, script, stop, write_problems
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

MODEL = ("--model_path", "m", "--model_name", "m", "--dataset", "problems.jsonl", "--num_rollout", "4", "--no_canary")


def make_job(folder: Path, environment: dict[str, str]) -> Job:
    """Make a job whose processes can be distinguished from all others by an environment variable."""
    write_problems(folder / "problems.jsonl", 40)
    return Job("reject_sampling", folder, environment | {"ROLLMILL_TEST": uuid.uuid4().hex})


@pytest.fixture
def job(tmp_path: Path, stand_in: dict[str, str]) -> Job:
    return make_job(tmp_path, stand_in)


def wait_for_end(job: Job, timeout: float) -> None:
    """Wait until no process of a job is left."""
    wait_until(lambda: not processes_of(job.environment["ROLLMILL_TEST"]), timeout, every=0.3)


def seeds(lines: list[bytes]) -> Counter[int]:
    return Counter(json.loads(line)["seed"] for line in lines)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_interrupted_runs_leave_no_process_and_repeat_nothing(job: Job, number: signal.Signals) -> None:
    slow = script(latency_s=0.3, children=True)
    process = job.start(*MODEL, *slow, "--concurrency", "2")
    wait_until(lambda: len(journal_lines(job.folder)) >= 30)
    code, printed = stop(process, number)
    assert code != 0
    wait_for_end(job, 20)
    before = journal_lines(job.folder)
    assert 30 <= len(before) < 160
    if number != signal.SIGKILL:
        assert "Traceback" not in printed
    done = job.run(*MODEL, *slow, "--concurrency", "32")
    assert done.returncode == 0, done.stderr
    after = journal_lines(job.folder)
    assert after[: len(before)] == before
    assert len(seeds(after)) == 160
    assert max(seeds(after).values()) == 1
    assert not processes_of(job.environment["ROLLMILL_TEST"])


def test_killed_run_repeats_only_requests_in_flight(job: Job) -> None:
    with ScriptedServer(Script(model="m", latency_s=0.1)) as server:
        outside = (*MODEL, "--base_url", server.base_url, "--concurrency", "2")
        process = job.start(*outside)
        wait_until(lambda: server.requests >= 60)
        stop(process, signal.SIGKILL)
        sent, kept = server.requests, len(journal_lines(job.folder))
        assert sent - kept <= 8
        assert job.run(*outside).returncode == 0
        assert len(server.seeds) == 160
        assert server.requests == 160 + sent - kept


def test_a_server_that_dies_is_started_again(job: Job) -> None:
    done = job.run(*MODEL, *script(die_after=100, latency_s=0.01, children=True))
    assert done.returncode == 0, done.stderr
    lines = journal_lines(job.folder)
    assert len(seeds(lines)) == 160
    assert not [line for line in lines if json.loads(line)["error"]]
    assert (job.folder / "logs" / "m_vllm.log").read_text().count("serving on port") == 2


def test_server_that_does_not_start_is_reported_at_once(job: Job) -> None:
    failed = job.run(*MODEL, *script(start_error="ValueError: no such architecture"), timeout=30)
    assert failed.returncode == 1
    assert "no such architecture" in failed.stderr.strip().splitlines()[-1]
    assert "Traceback" not in failed.stderr


def test_port_in_use_names_its_process(job: Job) -> None:
    with ScriptedServer(Script()) as server:
        failed = job.run(*MODEL, *script(), "--model_port", str(server.port))
    assert failed.returncode == 1
    assert f"process {os.getpid()}" in failed.stderr.strip().splitlines()[-1]


def test_second_process_on_a_run_is_refused(job: Job) -> None:
    with ScriptedServer(Script(model="m", latency_s=0.3)) as server:
        outside = (*MODEL, "--base_url", server.base_url, "--concurrency", "2")
        first = job.start(*outside)
        wait_until(lambda: server.requests >= 8)
        second = job.run(*outside)
        assert second.returncode == 1
        assert f"in use by process {first.pid} on " in second.stderr.strip().splitlines()[-1]
        assert first.wait(timeout=60) == 0
        first.communicate()
    assert max(seeds(journal_lines(job.folder)).values()) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_stops_the_run_and_loses_nothing(job: Job, small_disk: Path) -> None:
    with ScriptedServer(Script(model="m", completion_bytes=3000)) as server:
        outside = (*MODEL, "--base_url", server.base_url, "--output_dir", str(small_disk))
        stopped = job.run(*outside)
        assert stopped.returncode == 1
        assert "the disk is full" in stopped.stderr.strip().splitlines()[-1]
        assert "Traceback" not in stopped.stderr
        before = journal_lines(small_disk)
        assert len(before) > 20
        assert all(json.loads(line) for line in before)
        subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
        done = job.run(*outside)
        assert done.returncode == 0, done.stderr
    after = journal_lines(small_disk)
    assert after[: len(before)] == before
    assert len(seeds(after)) == 160
    assert max(seeds(after).values()) == 1


def test_output_directory_that_is_a_file_is_one_line(job: Job) -> None:
    (job.folder / "taken").write_text("a file")
    with ScriptedServer(Script(model="m")) as server:
        stopped = job.run(*MODEL, "--base_url", server.base_url, "--output_dir", "taken")
    assert stopped.returncode == 1
    assert "Traceback" not in stopped.stderr
    assert "Not a directory: taken" in stopped.stderr.strip().splitlines()[-1]


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_before_the_first_rollout(job: Job, small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        fill(small_disk / "ballast")
    with ScriptedServer(Script(model="m")) as server:
        stopped = job.run(*MODEL, "--base_url", server.base_url, "--output_dir", str(small_disk))
    assert stopped.returncode == 1
    assert "Traceback" not in stopped.stderr
    assert "No space left on device" in stopped.stderr.strip().splitlines()[-1]


def test_two_servers_share_the_work_and_a_dead_one_is_excluded(job: Job) -> None:
    with ScriptedServer(Script(model="m", latency_s=0.05)) as first:
        urls = ("--base_url", first.base_url, "--concurrency", "2")
        with ScriptedServer(Script(model="m", latency_s=0.05)) as second:
            process = job.start(*MODEL, *urls, "--base_url", second.base_url)
            wait_until(lambda: second.requests >= 20 and first.requests >= 20)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = journal_lines(job.folder)
    assert len(seeds(lines)) == 160
    assert not [line for line in lines if json.loads(line)["error"]]


def test_server_failing_for_10_s_loses_no_rollout(job: Job) -> None:
    with ScriptedServer(Script(model="m", failing_s=10)) as server:
        done = job.run(*MODEL, "--base_url", server.base_url)
        assert done.returncode == 0, done.stderr
        assert "failed and were sent again: http_500" in done.stderr
        assert server.requests > 160
    lines = journal_lines(job.folder)
    assert len(seeds(lines)) == len(lines) == 160
    assert not [line for line in lines if json.loads(line)["error"]]
    assert max(json.loads(line)["model_calls"] for line in lines) > 1


STUCK = """
import os, sys, threading, time

def hang_forever():
    while not os.path.exists("hang_forever"):
        time.sleep(0.05)
    {how}

if any("{where}" in argument for argument in sys.orig_argv):
    threading.Thread(target=hang_forever, daemon=True).start()
"""
LOCKS_OF_LOGGING = """
    import logging
    for lock in [logging._lock, *(handler().lock for handler in logging._handlerList)]:
        lock.acquire()
    time.sleep(600)
"""
THE_INTERPRETER = "import ctypes; ctypes.PyDLL(None).sleep(600)"
FLOW, WORKER = "flows.reject_sampling", "spawn_main"


@contextmanager
def flow_with_blocked_process(job: Job, where: str, how: str, workers: int = 2) -> Iterator[subprocess.Popen[str]]:
    """Start a flow with workers in which one process hangs."""
    (job.folder / "sitecustomize.py").write_text(STUCK.format(where=where, how=how))
    path = f"{job.folder}{os.pathsep}{job.environment['PYTHONPATH']}"
    slow = script(latency_s=0.3, children=True)
    process = job.start(*MODEL, *slow, "--concurrency", "2", "--gpu_workers", str(workers), PYTHONPATH=path)
    try:
        wait_until(lambda: len(journal_lines(job.folder)) >= 8, timeout=200)
        (job.folder / "hang_forever").touch()
        time.sleep(1)
        yield process
    finally:
        for left in processes_of(job.environment["ROLLMILL_TEST"]):
            left.kill()
        process.communicate()


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [child for child in children if any(WORKER in argument for argument in child.cmdline())]


WAYS = [(FLOW, LOCKS_OF_LOGGING), (FLOW, THE_INTERPRETER), (WORKER, THE_INTERPRETER)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_blocked_processes_end_within_20_s_of_a_signal(
    tmp_path: Path, stand_in: dict[str, str], number: signal.Signals
) -> None:
    """All cases run concurrently, since each takes most of its time to end."""
    with ExitStack() as stack:
        running = []
        for way, (where, how) in enumerate(WAYS):
            (tmp_path / f"{way}").mkdir()
            job = make_job(tmp_path / f"{way}", stand_in)
            workers = 2 if where == WORKER else 1
            running.append((job, stack.enter_context(flow_with_blocked_process(job, where, how, workers))))
        before = [journal_lines(job.folder) for job, _ in running]
        for _, process in running:
            process.send_signal(number)
        deadline = time.monotonic() + 18
        for (job, process), journal in zip(running, before, strict=True):
            printed = "".join(process.communicate(timeout=max(0.1, deadline - time.monotonic())))
            assert "reject_sampling: stopped: run the same command again to continue" in printed
            assert "Traceback" not in printed, printed
            wait_for_end(job, 5)
            assert journal_lines(job.folder)[: len(journal)] == journal


def test_second_signal_kills_blocked_processes_at_once(job: Job) -> None:
    with flow_with_blocked_process(job, FLOW, THE_INTERPRETER) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        code, printed = stop(process, signal.SIGINT, timeout=5)
        assert code == -signal.SIGKILL
        # Python's resource tracker may print after that, about resources of the killed process.
        assert "\nreject_sampling: stopped: run the same command again to continue\n" in printed
        wait_for_end(job, 5)


def test_blocked_workers_end_with_their_killed_flow(job: Job) -> None:
    with flow_with_blocked_process(job, WORKER, THE_INTERPRETER) as process:
        workers_of(process)[0].suspend()
        stop(process, signal.SIGKILL)
        wait_for_end(job, 20)


@pytest.mark.parametrize("after_s", [0.1, 0.6, 1.5])
def test_ctrl_c_at_a_terminal_while_workers_start(job: Job, after_s: float) -> None:
    arguments = job.command(*MODEL, *script(), "--gpu_workers", "2")
    process = subprocess.Popen(
        arguments, cwd=job.folder, env=job.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        process_group=0,
    )  # fmt: skip
    wait_until(lambda: workers_of(process))
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert "Traceback" not in output + errors
    assert errors.endswith("\nreject_sampling: stopped: run the same command again to continue\n")
    wait_for_end(job, 20)
