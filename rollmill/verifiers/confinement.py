"""Restrict the own process before it judges answers: resource limits, and a filter of system calls."""

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
"""Most open file descriptors, and therefore also above the highest one that can be open."""
_MIB = 1 << 20
_MAPPED = 4
"""Multiple of the memory limit that a process may map."""


class _Program(ctypes.Structure):
    """The kernel's `struct sock_fprog`: a seccomp filter."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def bind(limits: Limits) -> None:
    """Apply resource limits to this process and its forks: no file writes, no core dump, no ptrace, bounded memory.

    A verifier may mistake a `MemoryError` for a wrong answer. A process may therefore map several times its limit,
    and whether it used more is checked afterwards (`memory_peak`) or watched (`fork`).

    Its standard streams are redirected to /dev/null, since the output is not needed and could be unbounded.
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
    """Make a sandbox's `SCRATCH` permanently read-only for this process."""
    for folder, _, _ in os.walk(SCRATCH, topdown=False):
        Path(folder).chmod(0o555)


def compute_only(cpu_s: float | None = None, memory_mb: int | None = None) -> None:
    """Forbid this process to start, signal or inspect processes and to open sockets.

    Raises `OSError` where the kernel does not support seccomp filters. On processors without a known filter, the
    process still cannot start others unless it runs as root.

    Args:
        cpu_s: CPU seconds after which the kernel kills the process.
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
    """Let the kernel kill this process with SIGPROF once the block has used `limit_s` seconds of CPU time.

    A Python handler would not run before a computation in C has ended, so the default action is used.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def memory_peak() -> int:
    """Return the peak memory of this process, in bytes."""
    # `getrusage` includes the peak of the parent before `exec`, so /proc is preferred. In a sandbox there is no /proc,
    # but there the parent is the small first process of the namespace.
    if _HAS_STATUS:
        return int(_STATUS.read_text().split("\nVmHWM:", 1)[1].split(None, 1)[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


def _lower(kind: int, limit: int) -> None:
    """Set a resource limit, hard and soft, without raising an existing one."""
    most = resource.getrlimit(kind)[1]
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    resource.setrlimit(kind, (limit, limit))


def _prctl(option: int, *arguments: object) -> None:
    # prctl reads all five arguments as unsigned long; missing ones would be garbage.
    values = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    values += [ctypes.c_ulong(0)] * (4 - len(values))
    if ctypes.CDLL(None, use_errno=True).prctl(option, *values) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
