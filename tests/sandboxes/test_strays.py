"""bwrap is killed before the first process of its namespace has asked the kernel to die with it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rollmill.sandboxes import bubblewrap
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.namespace import Namespace
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.sandbox import SandboxError, SandboxSpec
from rollmill.sandboxes.strays import end_strays, marked_bwrap
from tests.waiting import wait_until

# Starts bwrap so that it comes no further: "before_report": it does not report its child, which waits for bwrap;
# "after_report": it has reported its child, which waits at the end of its set-up.
HOLD_SCRIPT = """
import os, sys
place, *arguments = sys.argv[1:]
read, write = os.pipe()
os.set_inheritable(read, True)
os.set_inheritable(write, True)
if place == "before_report":
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b" " * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    os.dup2(write, int(arguments[arguments.index("--json-status-fd") + 1]))
else:
    end = arguments.index("--")
    end += 1 + arguments[end + 1:].index("--") if arguments[0] == "setpriv" else 0
    arguments[end:end] = ["--block-fd", str(read)]
os.execvp(arguments[0], arguments)
"""
POSITIONS = ["before_report", "after_report"]


def hold_command(position: str) -> list[str]:
    return [sys.executable, "-c", HOLD_SCRIPT, position]


def children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children()
    return []


def is_bwrap(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "bwrap" in process.cmdline()[:1]
    return False


def held_pair(starter: psutil.Process) -> tuple[psutil.Process, psutil.Process]:
    """Return bwrap and the namespace's first process, once both have reached the position."""
    result: list[psutil.Process] = []

    def both() -> bool:
        result[:] = [each for outside in filter(is_bwrap, children(starter)) for each in (outside, *children(outside))]
        if len(result) != 2:
            return False
        before = result[1].num_ctx_switches()
        time.sleep(0.2)
        return result[1].num_ctx_switches() == before

    wait_until(both, 20)
    return result[0], result[1]


def lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def seen() -> Iterator[list[psutil.Process]]:
    """End the processes that a failed test leaves."""
    processes: list[psutil.Process] = []
    yield processes
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
        if isinstance(process, psutil.Popen):
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("by", ["its sandbox", "another"])
def test_a_start_that_is_killed_half_way_leaves_no_process(host, monkeypatch, seen, position, by):
    usual = bubblewrap.as_other_user
    monkeypatch.setattr(bubblewrap, "as_other_user", lambda uid: [*hold_command(position), *usual(uid)])
    sandbox = host.start(SandboxSpec(image="small"))
    with ThreadPoolExecutor(1) as pool:
        execution = pool.submit(sandbox.execute, "sleep 60")
        outside, first = held_pair(psutil.Process())
        seen += [outside, first]
        assert lives(first)
        if by == "another":
            outside.kill()
        else:
            sandbox.close()
        with pytest.raises(SandboxError):
            execution.result(20)
    assert not lives(first)
    sandbox.close()


OWNER = """
    from pathlib import Path
    from rollmill.sandboxes import bubblewrap
    from rollmill.sandboxes.sandbox import SandboxSpec
    usual = bubblewrap.as_other_user
    host = bubblewrap.BubblewrapHost(Path({images!r}), root=Path({root!r}))
    bubblewrap.as_other_user = lambda uid: [*{launcher!r}, *usual(uid)]
    print("ready", flush=True)
    host.start(SandboxSpec(image="small")).execute({command!r})
"""


def started_owner(images: Path, root: Path, launcher: list[str], command: str) -> psutil.Popen:
    arguments = {"images": str(images), "root": str(root), "launcher": launcher, "command": command}
    code = textwrap.dedent(OWNER).format(**arguments)
    owner = psutil.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert owner.stdout.readline() == b"ready\n"
    return owner


@pytest.mark.slow
@pytest.mark.parametrize("position", POSITIONS)
def test_next_host_ends_only_processes_of_the_killed_owner(host, images, root, seen, position):
    dead = started_owner(images, root, hold_command(position), "sleep 60")
    seen.append(dead)
    outside, stray = held_pair(dead)
    [left] = root.iterdir()
    living = started_owner(images, root, hold_command(position), "sleep 60")
    seen.append(living)
    its_pair = held_pair(living)
    seen += [outside, stray, *its_pair]
    # Others' processes may well name the folder, or the mark.
    name = f"{left.name}/"
    others = [
        psutil.Popen(["sleep", "60"], env={"FOLDER": str(left)}, cwd=left),
        psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(left), name, "--unsetenv", name]),
    ]
    seen += others
    dead.kill()
    dead.wait()
    wait_until(lambda: not lives(outside))
    with BubblewrapHost(images, root=root) as first_after:
        assert not lives(stray)
        assert not left.exists()
        assert all(map(lives, [living, *its_pair, *others]))
        assert first_after.start(SandboxSpec(image="small")).execute("echo fine").output == "fine\n"
    living.kill()
    living.wait()
    with BubblewrapHost(images, root=root):
        assert not any(map(lives, its_pair))


@pytest.mark.slow
def test_starts_that_are_killed_at_any_moment_leave_nothing(host):
    chance = random.Random(17)
    settings = [*host._settings, "--setenv", "PATH", "/usr/bin"]
    for number in range(50):
        mark = f"{uuid.uuid4().hex}/{number}"
        namespace = Namespace(mark, [], settings, ["/bin/sleep", "60"])
        killing = threading.Timer(chance.uniform(0, 0.02), os.kill, [namespace.pid, signal.SIGKILL])
        killing.start()
        output = CappedOutput(1000)
        while not namespace.wait(1.0, output):
            pass
        namespace.finish(output)
        killing.join()
        assert marked(mark) == []


def marked(mark: str) -> list[int]:
    """Processes that have a text like that among their arguments."""
    result = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(mark in argument for argument in process.cmdline()):
                result.append(process.pid)
    return result


def test_only_those_whose_mark_begins_so_are_ended(seen):
    owner, other = uuid.uuid4().hex, uuid.uuid4().hex
    marks = [f"{owner}/1", f"{owner}/1", f"{owner}/2", f"{other}/1", f"{owner[:-1]}", f"x{owner}/1"]
    rest = ["--die-with-parent", "--unshare-pid", "--dev-bind", "/", "/", "sleep", "60"]
    seen += [psutil.Popen([*marked_bwrap(mark), *rest]) for mark in marks]
    for process in seen:
        wait_until(lambda process=process: is_bwrap(process))
    end_strays([f"{owner}/1"])
    assert [lives(each) for each in seen] == [False, False, True, True, True, True]
    end_strays([f"{owner}/", "none/"])
    assert [lives(each) for each in seen] == [False, False, False, True, True, True]
    end_strays([])
    assert lives(seen[3])
    end_strays(marks)
    assert not any(map(lives, seen))
