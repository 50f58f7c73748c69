"""Supervises one command: ends it with all its descendants when the caller ends.

Run by path, with only the standard library: `process_supervisor.py WATCHED_FD GRACE_SECONDS COMMAND...`. The caller has
the other end of the pipe WATCHED_FD. When that is closed, even because of SIGKILL, or when the supervisor gets SIGTERM
or SIGINT, every descendant gets SIGTERM and, after the grace period, SIGKILL. Descendants that left the group or lost
their parent are found, too, since the supervisor is their subreaper. When the command ends by itself, processes
that it left behind are ended, and the supervisor exits with its code (128 + signal number for a signal).
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
    """Return the living descendants of processes, each with its parent, from /proc; zombies are left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The second field is the name in parentheses, which may contain spaces and parentheses itself.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    parent_of: dict[int, int] = {}
    parents = list(roots)
    for pid in parents:  # the list grows during the iteration: breadth first
        its_children = children.get(pid, [])
        parent_of.update(dict.fromkeys(its_children, pid))
        parents.extend(its_children)
    return parent_of


def send(pids: list[int], number: int) -> None:
    """Send a signal to processes; those that have ended are ignored."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):  # ended, or another user's
            continue


def reap() -> None:
    """Reap every child that has ended, including adopted ones."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def end_all(grace: float) -> None:
    """Send SIGTERM to all descendants, and SIGKILL after `grace` seconds, until none is left."""
    supervisor = os.getpid()
    signalled: set[int] = set()
    deadline = time.monotonic() + grace
    while living := descendants(supervisor):
        if time.monotonic() > deadline:
            send(list(living), signal.SIGKILL)
        else:
            # First all, later only orphans that appeared since: a process that shuts down may start children for that.
            new = [
                pid
                for pid, parent in living.items()
                if pid not in signalled and (not signalled or parent == supervisor)
            ]
            send(new, signal.SIGTERM)
            signalled.update(new)
        time.sleep(0.05)
        reap()


def owner() -> list[int]:
    """Return a file descriptor (in a list) that becomes readable when the caller ends; empty where unsupported.

    The pipe alone is not enough: a forked child of the caller may keep it open.
    """
    try:
        return [os.pidfd_open(os.getppid())]
    except (OSError, AttributeError):  # before Linux 5.3
        return []


def main(watched: int, grace: float, command: list[str]) -> int:
    """Run `command` until it ends or must end; return the exit code."""
    import ctypes  # late, both: the guard and every command import this module only for its other functions
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
    # The command has ended. Its descendants are adopted by this process, and may still have to free shared memory.
    end_all(min(grace, 5.0))
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
