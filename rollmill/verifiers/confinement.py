"""Restrictions that a process imposes on itself before it judges answers."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

from rollmill.sandboxes.sandbox import Limits
from rollmill.sandboxes.system import SCRATCH
from rollmill.sandboxes.system_calls import filter_program

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_STATUS = Path("/proc/self/status")
_HAS_STATUS = _STATUS.exists()
MOST_FILES = 1024
"""Open at a time; a new process's first ones have the lowest numbers."""
_MIB = 1 << 20
_MAPPED = 4
"""Multiple of the memory limit that a process may map."""


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def bind(limits: Limits) -> None:
    """Limit this process and its forks: no writing of files, no core dump, no tracing by others; memory as a backstop.

    A verifier may mistake a lack of memory for a wrong answer. A process may therefore map several times its limit,
    and whether it used more is checked afterwards (`memory_peak`) or watched (`fork`).

    From now on its output is discarded: it is not needed, and could be endless.
    """
    _lower(resource.RLIMIT_AS, _MAPPED * limits.memory_mb * _MIB)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NOFILE, MOST_FILES)
    _lower(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1, 2):
        os.dup2(nothing, file)
    os.close(nothing)


def close_scratch() -> None:
    """Make a sandbox's `SCRATCH` read-only for this process, for good."""
    for folder, _, _ in os.walk(SCRATCH, topdown=False):
        Path(folder).chmod(0o555)


def compute_only(cpu_s: float | None = None, memory_mb: int | None = None) -> None:
    """Forbid this process to start, signal or inspect processes and to open sockets.

    Raises `OSError` where the kernel does not filter system calls. On processors for which no filter is known, it
    still cannot start a process unless it runs as root.

    Args:
        cpu_s: CPU seconds from now on after which the process is killed.
        memory_mb: Memory that the process may map, in MiB.
    """
    if cpu_s is not None:
        _lower(resource.RLIMIT_CPU, ceil(cpu_s) + 1)
    if memory_mb is not None:
        _lower(resource.RLIMIT_AS, memory_mb * _MIB)
    _lower(resource.RLIMIT_NPROC, 0)
    program = filter_program(processes=False)
    if program and sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(program) // 8, program)))


@contextmanager
def cpu_limit(limit_s: float) -> Iterator[None]:
    """Have the kernel end this process with SIGPROF once the block has used `limit_s` seconds of CPU time.

    No handler of Python's: it would wait for the end of a computation in C.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def memory_peak() -> int:
    """Return the most bytes of memory that this process has used."""
    # `getrusage` tells the peak of what started this process, too, unless a namespace's first process did; there,
    # no /proc is.
    if _HAS_STATUS:
        return int(_STATUS.read_text().split("\nVmHWM:", 1)[1].split(None, 1)[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


def _lower(kind: int, limit: int) -> None:
    most = resource.getrlimit(kind)[1]
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    resource.setrlimit(kind, (limit, limit))


def _prctl(option: int, *arguments: object) -> None:
    given = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    given += [ctypes.c_ulong(0)] * (4 - len(given))
    if ctypes.CDLL(None, use_errno=True).prctl(option, *given) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
