"""Signals that are noted and looked at, and the guard that ends what stands still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rollmill.guard import alive
from tests.flows.conftest import processes_of, wait_until

ROOT = Path(__file__).parents[1]
BEGINNING = """
import ctypes, logging, os, signal, subprocess, sys, threading, time
from concurrent.futures import Future, ThreadPoolExecutor
from rollmill.interruption import interruptible, leave_when_interrupted, look, result_of, terminable
from rollmill.command_line import report_errors

def child(*more):
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **dict(more))

def ready():
    print("ready", flush=True)

leave_when_interrupted("job")
"""
WAITS = """
with report_errors("job"), interruptible():
    child()
    ready()
    result_of(Future())
"""
HOLDS_THE_LOCK_OF_LOGGING = """
def hold():
    with logging._lock:
        time.sleep(600)

with report_errors("job"), interruptible():
    child()
    child(("start_new_session", True))
    threading.Thread(target=hold, daemon=True).start()
    ready()
    logging.getLogger("job").setLevel(1)
"""
HOLDS_THE_INTERPRETER = """
with report_errors("job"), interruptible():
    child()
    child(("env", {}))
    os.kill(child().pid, signal.SIGSTOP)
    ready()
    threading.Thread(target=lambda: ctypes.PyDLL(None).sleep(600), daemon=True).start()
    time.sleep(600)
"""


class Command:
    """A command that runs."""

    def __init__(self, script: str, *, group: bool = False) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", BEGINNING + textwrap.dedent(script)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "ROLLMILL_TEST": self.mark},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0 if group else None,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.tree = [self.process.pid, *(one.pid for one in psutil.Process(self.process.pid).children(recursive=True))]

    def end(self, timeout: float = 60) -> tuple[int, str]:
        """Waits for the end of it and of all that it started; code and what it said."""
        _, errors = self.process.communicate(timeout=timeout)
        wait_until(lambda: not processes_of(self.mark) and not any(map(alive, self.tree)), timeout)
        return self.process.returncode, errors


@pytest.fixture
def started() -> Iterator[list[Command]]:
    """Commands that are killed at the end, whatever the test made of them."""
    commands: list[Command] = []
    yield commands
    for command in commands:
        for process in processes_of(command.mark):
            process.kill()
        command.process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_waiting_and_what_was_started(started, number, status):
    started.append(command := Command(WAITS))
    command.process.send_signal(number)
    assert command.end() == (status, "\njob: stopped: the same command continues\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("script", [HOLDS_THE_LOCK_OF_LOGGING, HOLDS_THE_INTERPRETER])
def test_the_second_signal_ends_what_stands_still(started, script, number):
    started.append(command := Command(script))
    command.process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        command.process.communicate(timeout=1)
    command.process.send_signal(number)
    assert command.end() == (-signal.SIGKILL, "\njob: stopped: the same command continues\n")
