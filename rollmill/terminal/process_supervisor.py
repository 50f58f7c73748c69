"""Keeps one command, and ends it with all its descendants when whoever asked for it is gone.

Run by path with nothing but the standard library: `process_supervisor.py WATCHED_FD GRACE_SECONDS COMMAND...`. The
caller keeps the other end of the pipe WATCHED_FD: when that closes, even by SIGKILL, or when the keeper gets SIGTERM
or SIGINT, every descendant of the keeper gets SIGTERM and, after the grace, SIGKILL. Descendants that left the group
or lost their parent are found too: the keeper is their subreaper. When the command ends by itself, what it left
behind is killed, and the keeper exits with its code (128 + signal number for a signal).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def descendants(*roots: int) -> dict[int, int]:
    """Return the living descendants of processes and the parent of each, from /proc; zombies are left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The second field is the name in parentheses, and may hold spaces and parentheses itself.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    parent_of: dict[int, int] = {}
    parents = list(roots)
    for pid in parents:  # grows while it is walked
        born = children.get(pid, [])
        parent_of.update(dict.fromkeys(born, pid))
        parents.extend(born)
    return parent_of


def send(pids: list[int], number: int) -> None:
    """Signal processes, those that are gone already excepted."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):  # gone, or another user's
            continue


def reap() -> None:
    """Collect every child that has ended, adopted ones included."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def end_all(grace: float) -> None:
    """Send SIGTERM to all descendants, SIGKILL to what is left after `grace` seconds, until none is left."""
    me = os.getpid()
    signalled: set[int] = set()
    deadline = time.monotonic() + grace
    while living := descendants(me):
        if time.monotonic() > deadline:
            send(list(living), signal.SIGKILL)
        else:
            # All at first, then those that were born meanwhile and lost their parent. What a parent starts in order to
            # end well is left to it.
            new = [pid for pid, parent in living.items() if pid not in signalled and (not signalled or parent == me)]
            send(new, signal.SIGTERM)
            signalled.update(new)
        time.sleep(0.05)
        reap()


def owner() -> list[int]:
    """Return a file that becomes readable when the caller ends.

    A child that it forked may hold the pipe open longer.
    """
    try:
        return [os.pidfd_open(os.getppid())]
    except (OSError, AttributeError):  # before Linux 5.3
        return []


def main(watched: int, grace: float, command: list[str]) -> int:
    """Keep `command` until it ends or must end; return the exit code to leave with."""
    import ctypes  # both for a keeper's own process: a guard, and every command, import this module for the rest
    import subprocess

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    ends = [watched, *owner()]
    child = subprocess.Popen(command, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    while child.poll() is None:
        ready, _, _ = select.select([*ends, wake_read], [], [])
        if set(ends) & set(ready) or set(os.read(wake_read, 4096)) - {signal.SIGCHLD}:
            end_all(grace)
            return 143
    # Popen has reaped it: what is left of its tree is ours now. It may still have shared memory to remove.
    end_all(min(grace, 5.0))
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
