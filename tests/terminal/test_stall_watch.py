"""Stalled processes end, and leave the stacks of their threads."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from rollmill.terminal.stall_watch import new_stacks

STANDING_STILL = {
    "an endless call": "while True: pass",
    "a lock that nobody releases": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a call that holds the interpreter's lock": "ctypes.PyDLL(None).pause()",
}
PROGRAM = """
import ctypes, sys, threading, time
from pathlib import Path
from rollmill.terminal import stall_watch
stall_watch.MARGIN_S = 0.5
with stall_watch.watch.exit_on_stall(1.5, Path("logs/stacks.txt")):
{body}
"""


COMPLETE = "print('whole')"
BODIES = {
    **{name: (line, "print('went on')") for name, line in STANDING_STILL.items()},
    "steps complete": ("for _ in range(40): time.sleep(0.1); stall_watch.note_progress()", COMPLETE),
    "a step with a limit of its own": ("with stall_watch.TimedStep(30): time.sleep(4)", COMPLETE),
    "longer and longer gaps": ("for gap in (1.0, 1.8, 4.5): time.sleep(gap); stall_watch.note_progress()", COMPLETE),
    "a step that has ended": ("with stall_watch.TimedStep(30): pass", "time.sleep(20)", COMPLETE),
    "a long step": ("with stall_watch.TimedStep(30): time.sleep(4)", "time.sleep(10)", COMPLETE),
    "after the block": ("pass\ntime.sleep(4)\nprint('whole')",),
}


class Ended(NamedTuple):
    """Exit code, output and folder of a program."""

    returncode: int
    output: str
    folder: Path


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """All programs, run at the same time: nearly all they do is wait."""
    started = {}
    try:
        for name, lines in BODIES.items():
            folder = tmp_path_factory.mktemp("program")
            command = [sys.executable, "-c", PROGRAM.format(body="\n".join(f"    {line}" for line in lines))]
            started[name] = folder, subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        outputs = {name: process.communicate(timeout=60)[0] for name, (_, process) in started.items()}
    finally:
        for _, process in started.values():
            process.kill()
            process.wait()
    return {name: Ended(process.returncode, outputs[name], folder) for name, (folder, process) in started.items()}


@pytest.mark.parametrize("name", STANDING_STILL)
def test_a_stalled_process_ends_and_leaves_its_stacks(ended: dict[str, Ended], name: str) -> None:
    result = ended[name]
    assert result.returncode == 1
    assert "went on" not in result.output
    assert 'File "<string>", line 7' in (result.folder / "logs/stacks.txt").read_text()


def test_completed_steps_keep_the_process_alive_without_a_file(ended: dict[str, Ended]) -> None:
    result = ended["steps complete"]
    assert result[:2] == (0, "whole\n")
    assert not (result.folder / "logs/stacks.txt").exists()


def test_a_step_may_take_as_long_as_its_own_limit(ended: dict[str, Ended]) -> None:
    assert ended["a step with a limit of its own"][:2] == (0, "whole\n")


def test_gaps_that_ended_by_themselves_allow_longer_ones(ended: dict[str, Ended]) -> None:
    assert ended["longer and longer gaps"][:2] == (0, "whole\n")


def test_a_step_that_has_ended_allows_nothing_any_more(ended: dict[str, Ended]) -> None:
    assert ended["a step that has ended"][:2] == (1, "")


def test_a_long_step_lets_no_later_gap_be_longer(ended: dict[str, Ended]) -> None:
    assert ended["a long step"][:2] == (1, "")


def test_time_before_the_watch_and_while_stopped_is_ignored(tmp_path: Path) -> None:
    program = """
import signal, time
from pathlib import Path
from rollmill.terminal import stall_watch
stall_watch.MARGIN_S = 0.2
signal.signal(signal.SIGTSTP, stall_watch.watch.stop_process)
time.sleep(1.0)
stall_watch.note_progress()
with stall_watch.watch.exit_on_stall(0.8, Path("stacks.txt")):
    print("ready", flush=True)
    for _ in range(15):
        time.sleep(0.1)
        stall_watch.note_progress()
    print("whole", flush=True)
    time.sleep(20)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTSTP)
        time.sleep(3.0)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "whole\n"
        assert process.wait(15) == 1


def test_nothing_is_watched_after_the_block(ended: dict[str, Ended]) -> None:
    assert ended["after the block"][:2] == (0, "whole\n")


def test_stall_raises_an_error_within_the_grace_period(tmp_path: Path) -> None:
    program = """
import time
from pathlib import Path
from rollmill.terminal import stall_watch
from rollmill.errors import RunStoppedError
stall_watch.MARGIN_S = 0.2
stall_watch.watch.ends_process = True
check = stall_watch.StallCheck(0.3)
try:
    with stall_watch.watch.exit_on_stall(0.3, Path("stacks.txt"), grace_s=2.0):
        while True:
            check.check()
            time.sleep(0.05)
except RunStoppedError as error:
    print(error, flush=True)
    time.sleep(60)  # what should end does not
print("went on")
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "stacks.txt shows where every thread is; run the same command again to continue" in done.stdout
    assert "went on" not in done.stdout


def test_processes_create_and_remove_a_shared_log_folder_safely(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from rollmill.terminal.stall_watch import watch
path = Path("run/logs", sys.argv[1])
for _ in range(500):
    with watch.exit_on_stall(60, path):
        assert path.exists()
"""
    commands = [[sys.executable, "-c", program, f"stalled.{name}.txt"] for name in ("a", "b")]
    processes = [subprocess.Popen(command, cwd=tmp_path) for command in commands]
    while any(process.poll() is None for process in processes):
        assert new_stacks(tmp_path / "run", set()) == []
    assert [process.returncode for process in processes] == [0, 0]


def test_only_files_that_hold_stacks_are_new_and_only_once(tmp_path: Path) -> None:
    logs, seen = tmp_path / "logs", set[Path]()
    assert new_stacks(tmp_path, seen) == []
    logs.mkdir()
    for name, text in {"stalled.a-1.txt": "Thread", "stalled.a-2.txt": "", "m_vllm.log": "INFO"}.items():
        (logs / name).write_text(text)
    assert new_stacks(tmp_path, seen) == [logs / "stalled.a-1.txt"]
    assert new_stacks(tmp_path, seen) == []
