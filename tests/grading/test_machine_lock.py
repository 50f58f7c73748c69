from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rollmill.grading.grader import LocalGrader
from rollmill.grading.machine_lock import Turns
from rollmill.grading.problem import GradedProblem
from rollmill.grading.speedup import PairCount
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.sandbox import SandboxError, SandboxSpec
from tests.waiting import wait_until

TAKES_TURNS = """
import os, sys, time
from pathlib import Path
from rollmill.grading.machine_lock import Turns
turns, noted, lasts = Turns(Path(sys.argv[1])), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND), float(sys.argv[3])
while True:
    with turns.turn():
        os.write(noted, f"{os.getpid()} begins\\n".encode())
        time.sleep(lasts)
        os.write(noted, f"{os.getpid()} ends\\n".encode())
"""


@contextmanager
def taking_turns(lock: Path, noted: Path, lasts: float) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that takes the lock repeatedly, and records it."""
    process = subprocess.Popen([sys.executable, "-c", TAKES_TURNS, str(lock), str(noted), str(lasts)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def notes(noted: Path) -> list[list[str]]:
    return [line.split() for line in noted.read_text().splitlines()]


def test_processes_take_turns_and_a_killed_one_frees_the_lock(tmp_path: Path) -> None:
    lock, noted = tmp_path / "lock", tmp_path / "noted"
    noted.touch()
    with taking_turns(lock, noted, 0.02) as first, taking_turns(lock, noted, 0.02) as second:
        both = [str(first.pid), str(second.pid)]
        wait_until(lambda: all(sum(pid == item for pid, _ in notes(noted)) > 6 for item in both))
    outcome = notes(noted)
    if outcome[-1][1] == "begins":  # killed in its turn
        outcome.pop()
    assert [what for _, what in outcome] == ["begins", "ends"] * (len(outcome) // 2)
    assert all(begins[0] == ends[0] for begins, ends in zip(outcome[::2], outcome[1::2], strict=True))
    takers = [pid for pid, _ in outcome[::2]]
    assert [item for item in both if item * 12 in "".join(takers)] == []  # nobody waits for long

    noted.write_text("")
    with taking_turns(lock, noted, 600) as holder:
        wait_until(lambda: notes(noted) == [[str(holder.pid), "begins"]])
        with taking_turns(lock, noted, 0.0):
            time.sleep(0.7)
            assert len(notes(noted)) == 1
            holder.kill()
            wait_until(lambda: len(notes(noted)) > 3)


def test_threads_take_turns_until_it_is_closed(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "lock")
    inside: list[int] = []

    def take(number: int) -> None:
        with turns.turn():
            inside.append(number)
            time.sleep(0.01)
            assert inside[-1] == number

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(take, range(4)))
        assert sorted(inside) == [0, 1, 2, 3]
        with Turns(tmp_path / "lock").turn():  # another's
            waiting = [threads.submit(take, number) for number in (4, 5)]
            threading.Timer(0.2, turns.close).start()
            assert {str(item.exception(20)) for item in waiting} == {"grading ended before this change was measured"}
    assert len(inside) == 4
    with pytest.raises(SandboxError) as outcome, turns.turn():
        pass
    assert outcome.value.type == "closed"


def test_a_change_is_measured_when_no_other_process_measures(
    host: BubblewrapHost, problems: dict[str, GradedProblem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other tests measure, too
    grader = LocalGrader(host, pairs=PairCount(least=3, most=3))
    noted = tmp_path / "noted"
    noted.touch()
    lock = grader._scratch.parent / "measuring.lock"
    with closing(host.start(SandboxSpec(image="py"))) as sandbox, ThreadPoolExecutor(1) as threads:
        sandbox.execute("echo '# new' >> lib/total.py")
        with taking_turns(lock, noted, 600) as other:
            wait_until(lambda: notes(noted))
            graded = threads.submit(grader.grade, problems["quick"], sandbox.id)
            wait_until(lambda: grader._measuring._threads.locked())
            time.sleep(0.3)
            assert not graded.done()
            other.kill()
            assert graded.result(60).phase == "benchmark"
        with taking_turns(lock, noted, 600):
            graded = threads.submit(grader.grade, problems["quick"], sandbox.id)
            grader.close()
            outcome = graded.result(60)
    assert (outcome.success, outcome.reward, outcome.error_type, outcome.test_returncode) == (None, None, "closed", 0)
