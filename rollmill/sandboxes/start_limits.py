"""Resource limits that a namespace's first process has before it starts anything, so that all others inherit them."""

from __future__ import annotations

import math
import os
import re
import resource
from contextlib import suppress
from pathlib import Path

from rollmill.sandboxes.sandbox import Limits

MOST_FILES = 1024
"""Most open files of a process; also bounds the files that its user's sockets carry."""
OWN_PROCESSES = 2
"""Processes of the sandbox itself: the namespace's first, and the shell that runs the command."""
_OUTSIDE = 1
"""Processes of the sandbox's user outside of the namespace: bwrap."""
_MIB = 1 << 20
_COUNTS_BY_NAMESPACE = (5, 14)
_STACKS = 64 * _MIB
_MOST_SIGNALS = 1024


def limiting_command(limits: Limits, *, other_user: bool) -> list[str]:
    """Return the command (util-linux's `prlimit`) that starts another with hard limits, which nothing can raise again.

    `other_user`: whether all processes of its user are the sandbox's; otherwise their number is limited later, by
    `limit_processes`.
    """
    # A thread's stack counts as data with its whole size, of which little is used.
    values = {
        "core": (resource.RLIMIT_CORE, 0),
        "nofile": (resource.RLIMIT_NOFILE, MOST_FILES),
        "fsize": (resource.RLIMIT_FSIZE, limits.disk_mb * _MIB),
        "cpu": (resource.RLIMIT_CPU, math.ceil(limits.cpu_s) + 1),
        "data": (resource.RLIMIT_DATA, limits.memory_mb * _MIB * 5 // 4 + _STACKS),
        "msgqueue": (resource.RLIMIT_MSGQUEUE, 0),
        "sigpending": (resource.RLIMIT_SIGPENDING, _MOST_SIGNALS),
    }
    if other_user:
        values["nproc"] = (resource.RLIMIT_NPROC, limits.processes + OWN_PROCESSES + _OUTSIDE)
    return ["prlimit", *(f"--{name}={_within(*value)}" for name, value in values.items()), "--"]


def limit_processes(pid: int, limits: Limits) -> None:
    """Limit the processes of a namespace, through its first process, before that starts another.

    The process belongs to this user and has a user namespace of its own, whose processes alone count (since Linux
    5.14; before, all processes of the user would count, so `Watch` alone holds the limit). A limit set before the
    namespace exists would count all processes of the user, too. Raises `OSError` where the process has ended.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    if version < _COUNTS_BY_NAMESPACE:
        return
    most = _within(resource.RLIMIT_NPROC, limits.processes + OWN_PROCESSES)
    resource.prlimit(pid, resource.RLIMIT_NPROC, (most, most))


def end_first(pid: int) -> None:
    """Let the kernel end this process and its children before others when memory runs out."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")


def _within(kind: int, limit: int) -> int:
    """Return the limit, or this process's own where that is lower: only a privileged process could raise it."""
    most = resource.getrlimit(kind)[1]
    return limit if most == resource.RLIM_INFINITY else min(limit, most)
