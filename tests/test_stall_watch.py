"""Processes that stand still end, and leave the stacks of their threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STANDING_STILL = {
    "an endless call": "while True: pass",
    "a lock that nobody releases": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a call that holds the interpreter's lock": "ctypes.PyDLL(None).pause()",
}
PROGRAM = """
import ctypes, sys, threading, time
from pathlib import Path
from rollmill import stall_watch
stall_watch.MARGIN_S = 0.2
with stall_watch.watch.exit_on_stall(0.3, Path("logs/stacks.txt")):
{body}
"""


def run(folder: Path, *lines: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    body = "\n".join(f"    {line}" for line in lines)
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("line", STANDING_STILL.values(), ids=STANDING_STILL.keys())
def test_a_process_that_stands_still_ends_and_leaves_its_stacks(tmp_path: Path, line: str) -> None:
    done = run(tmp_path, line, "print('went on')")
    assert done.returncode == 1
    assert "went on" not in done.stdout
    assert 'File "<string>", line 7' in (tmp_path / "logs/stacks.txt").read_text()


def test_steps_that_complete_keep_a_process_alive_and_no_file_is_left(tmp_path: Path) -> None:
    done = run(tmp_path, "for _ in range(20): time.sleep(0.1); stall_watch.note_progress()", "print('whole')")
    assert (done.returncode, done.stdout) == (0, "whole\n")
    assert not (tmp_path / "logs/stacks.txt").exists()


def test_a_step_may_take_as_long_as_its_own_limit(tmp_path: Path) -> None:
    done = run(tmp_path, "stall_watch.begin_step(30)", "time.sleep(2)", "print('whole')")
    assert (done.returncode, done.stdout) == (0, "whole\n")


def test_gaps_that_ended_by_themselves_allow_longer_ones(tmp_path: Path) -> None:
    gaps = "for gap in (0.4, 1.0, 2.5): time.sleep(gap); stall_watch.note_progress()"
    done = run(tmp_path, gaps, "print('whole')")
    assert (done.returncode, done.stdout) == (0, "whole\n")


def test_nothing_is_watched_after_the_block(tmp_path: Path) -> None:
    done = run(tmp_path, "pass\ntime.sleep(1.5)\nprint('whole')")
    assert (done.returncode, done.stdout) == (0, "whole\n")


def test_a_stall_is_an_error_first_where_there_is_time_for_it(tmp_path: Path) -> None:
    program = """
import time
from pathlib import Path
from rollmill import stall_watch
from rollmill.errors import RunStoppedError
stall_watch.MARGIN_S = 0.2
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
    assert "stacks.txt shows where every thread is; the same command continues" in done.stdout
    assert "went on" not in done.stdout
