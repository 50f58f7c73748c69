"""Signals that are recorded and raised later, and the guard that ends processes that hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rollmill.terminal.guard import MARK, alive
from rollmill.terminal.interruption import terminable
from rollmill.terminal.process_supervisor import send
from tests.flows.conftest import processes_of
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
MESSAGE = "\njob: stopped: run the same command again to continue\n"
BEGINNING = """
import ctypes, logging, os, signal, subprocess, sys, threading, time
from concurrent.futures import Future, ThreadPoolExecutor
from rollmill.terminal.interruption import interruptible, leave_when_interrupted, look, result_of, terminable
from rollmill.config.command_line import report_errors

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


LEAVES = """
with report_errors("job"), interruptible():
    child()
    child(("start_new_session", True))
    os.kill(child().pid, signal.SIGSTOP)
    subprocess.run(["bash", "-c", "sleep 600 & disown"], env=os.environ)  # an orphan
    ready()
    look() if {crash} else time.sleep(600)
    os._exit(7)
"""
CLEANS_UP = """
with report_errors("job"), interruptible():
    try:
        ready()
        result_of(Future())
    finally:
        threading.Event().wait(0.6)
        look()
        result_of(ThreadPoolExecutor().submit(time.sleep, 0.5))
        print("cleaned up", flush=True)
"""
IN_A_THREAD = """
from rollmill.errors import RunStoppedError

def work():
    while True:
        try:
            look()
        except RunStoppedError as error:
            return print(f"{type(error).__name__}: {error}", flush=True)

with report_errors("job"), interruptible(), ThreadPoolExecutor(1) as pool:
    working = pool.submit(work)
    ready()
    result_of(Future())
"""
IMPORTS = """
ready()
time.sleep(600)
"""
ENDS_WHILE_INTERRUPTED = """
with report_errors("job"), interruptible():
    signal.raise_signal(signal.SIGTERM)
    ready()
"""
KEEPS = """
from pathlib import Path
from rollmill.inference.supervised_process import SupervisedProcess

with report_errors("job"), interruptible():
    SupervisedProcess(["bash", "-c", "trap 'sleep 0.5; echo goodbye; exit' TERM; sleep 600 & wait"], log=Path("LOG"))
    while not subprocess.run(["pgrep", "-f", "trap .sleep 0.5; echo"], capture_output=True).stdout:
        time.sleep(0.05)
    time.sleep(0.5)
    ready()
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
        self.tree = [
            self.process.pid,
            *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True)),
        ]

    def end(self, timeout: float = 60) -> tuple[int, str]:
        """Wait for the end of the command and of all that it started; return its exit code and stderr."""
        self.stdout, errors = self.process.communicate(timeout=timeout)
        wait_until(lambda: not processes_of(self.mark) and not any(map(alive, self.tree)), timeout)
        return self.process.returncode, errors


@pytest.fixture
def started() -> Iterator[list[Command]]:
    """Commands that are killed at the end, whatever the test made of them."""
    commands: list[Command] = []
    yield commands
    for command in commands:
        send(command.tree, signal.SIGKILL)
        for process in processes_of(command.mark):
            process.kill()
        command.process.communicate(timeout=10)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_waiting_and_what_was_started(started, number, status):
    started.append(command := Command(WAITS))
    command.process.send_signal(number)
    assert command.end() == (status, MESSAGE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("script", [HOLDS_THE_LOCK_OF_LOGGING, HOLDS_THE_INTERPRETER])
def test_the_second_signal_ends_what_stands_still(started, script, number):
    started.append(command := Command(script))
    command.process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        command.process.communicate(timeout=1)
    command.process.send_signal(number)
    assert command.end() == (-signal.SIGKILL, MESSAGE)


@pytest.mark.slow
def test_what_stands_still_is_ended_in_20_s(started):
    for script in (HOLDS_THE_LOCK_OF_LOGGING, HOLDS_THE_INTERPRETER):
        started.append(Command(script))
    for command in started:
        command.process.send_signal(signal.SIGINT)
    for command in started:
        assert command.end(timeout=20) == (-signal.SIGKILL, MESSAGE)


def test_a_signal_that_comes_twice_at_once_is_one(started):
    started.append(command := Command(CLEANS_UP))
    command.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == (143, MESSAGE)
    assert command.stdout == "cleaned up\n"


@pytest.mark.parametrize("crash", [True, False])
def test_what_a_command_left_ends_with_it(started, crash):
    started.append(command := Command(LEAVES.format(crash=crash)))
    if not crash:
        command.process.kill()
    assert command.end() == (7 if crash else -signal.SIGKILL, "")


def test_what_has_a_keeper_may_end_well(started, tmp_path):
    started.append(command := Command(KEEPS.replace("LOG", str(tmp_path / "log"))))
    command.process.kill()
    command.end()
    assert (tmp_path / "log").read_text() == "goodbye\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_nothing_is_held_yet(started, number, status):
    started.append(command := Command(IMPORTS))
    command.process.send_signal(number)
    assert command.end() == (status, MESSAGE)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_after_the_last_waiting(started, number, status):
    started.append(command := Command(ENDS_WHILE_INTERRUPTED.replace("SIGTERM", number.name)))
    assert command.end() == (status, MESSAGE)


TERMINABLE = """
from rollmill.terminal.interruption import Interrupted
before = signal.getsignal(signal.SIGTERM), dict(os.environ)
try:
    with terminable("job"), terminable("within it"):
        sleeper = child(("env", {}), ("stdout", subprocess.DEVNULL), ("stderr", subprocess.DEVNULL))
        os.kill(os.getpid(), signal.SIGTERM)
        ready()
        look()
except Interrupted as error:
    print(error, sleeper.pid, flush=True)
assert before == (signal.getsignal(signal.SIGTERM), dict(os.environ))
try:
    with terminable("job"):
        subprocess.run(["bash", "-c", "echo $ROLLMILL_GUARDED | wc -w"])
finally:
    os._exit(0)
"""


def test_sigterm_in_a_process_of_somebody_else(started):
    started.append(command := Command(TERMINABLE))
    interrupted, guards = command.process.stdout.read().splitlines()
    message, _, sleeper = interrupted.rpartition(" ")
    os.kill(int(sleeper), signal.SIGKILL)  # it still runs: the process is not the command's to end
    assert command.end() == (0, "")
    assert (message, guards) == ("interrupted by SIGTERM", "1")


def test_work_in_other_threads_is_stopped_too(started):
    started.append(command := Command(IN_A_THREAD))
    command.process.send_signal(signal.SIGINT)
    assert command.end() == (130, MESSAGE)
    assert command.stdout == "RunStoppedError: the run was stopped; run the same command again to continue it\n"


def test_a_guard_within_a_guard_marks_for_both(monkeypatch):
    monkeypatch.setenv(MARK, "outer")
    with terminable("job"):
        assert os.environ[MARK].split()[0] == "outer"
        assert len(os.environ[MARK].split()) == 2
    assert os.environ[MARK] == "outer"


def test_garbage_is_looked_for_once_the_imports_are_done():
    program = """
import gc
from rollmill.terminal.interruption import interruptible, leave_when_interrupted
leave_when_interrupted("job")
states = [gc.isenabled()]
with interruptible():
    states.append(gc.isenabled())
print(*states, gc.isenabled(), gc.get_freeze_count() > 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["False", "True", "False", "True"]
