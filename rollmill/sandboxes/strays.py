"""Kills orphaned bwrap processes, which are identified by a mark in their arguments.

bwrap's two processes die with their parents, but only after they called PR_SET_PDEATHSIG: the namespace's first process
does so at the end of its set-up. If bwrap is killed before, that process is reparented to process 1 and stays forever,
waiting for bwrap or even running the command.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from rollmill.sandboxes.sandbox import SandboxError

_LONGEST_END_S = 10.0


def marked_bwrap(mark: str) -> list[str]:
    """Return the first arguments of bwrap, which identify its own processes in the process list."""
    return ["bwrap", "--unsetenv", mark]  # an option without an effect: no variable has such a name


def end_strays(beginnings: Sequence[str]) -> None:
    """Kill all processes whose marks have one of these prefixes, with their namespaces, and wait until they exit.

    Raises `SandboxError` where they do not exit.
    """
    patterns = [b"\0".join(map(os.fsencode, ["", *marked_bwrap(each)])) for each in beginnings]
    deadline = time.monotonic() + _LONGEST_END_S
    # Again, since a process may have started another before it was killed.
    while killed := [file for pid in _processes() if (file := _kill(pid, patterns)) is not None]:
        try:
            for file in killed:
                wait_for_end(file, deadline - time.monotonic())
        finally:
            for file in killed:
                os.close(file)


def wait_for_end(process: int, seconds: float = _LONGEST_END_S) -> None:
    """Wait until the process of that pidfd has exited. Raises `SandboxError` where it takes longer than `seconds`."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if not poll.poll(max(seconds, 0) * 1000):
        raise SandboxError(f"processes of a sandbox do not end within {_LONGEST_END_S:g} s", type_="end")


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _kill(pid: int, patterns: Sequence[bytes]) -> int | None:
    """Kill a process if its arguments contain a pattern, and return its pidfd; None otherwise."""
    if not _matches(pid, patterns):
        return None
    file = -1
    try:
        file = os.pidfd_open(pid)
        if _matches(pid, patterns):  # checked again: the number may have been reused before the pidfd was open
            signal.pidfd_send_signal(file, signal.SIGKILL)
            return file
    except OSError:  # it has ended, or belongs to another user
        pass
    if file >= 0:
        os.close(file)
    return None


def _matches(pid: int, patterns: Sequence[bytes]) -> bool:
    try:
        arguments = b"\0" + Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(pattern in arguments for pattern in patterns)
