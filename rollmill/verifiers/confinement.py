"""What a process that judges answers takes away from itself."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
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
"""Times the limit on memory."""


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def bind(limits: Limits) -> None:
    """Limits this process and its forks: no file to write, no core, nobody to trace or read them; memory as a backstop.

    Code that takes a lack of memory for a wrong answer must not meet it where nobody would know: a process may map
    several times its limit, and whether it has held more is asked afterwards (`memory_peak`), or watched (`fork`).

    What it prints from now on is gone: nobody waits for it, and it could be without end.
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
    """Makes a sandbox's `SCRATCH` read-only; what only computes cannot change that."""
    for folder, _, _ in os.walk(SCRATCH, topdown=False):
        Path(folder).chmod(0o555)


def compute_only(cpu_s: float | None = None, memory_mb: int | None = None) -> None:
    """From now on this process can start, signal and look into no process, and open no socket.

    `cpu_s` more end it, and it maps `memory_mb` at most.

    Raises `OSError` where the kernel does not filter system calls. On processors for which no filter is known, it can
    still start no process unless it is root's.
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


def memory_peak() -> int:
    """Bytes that this process has held at most."""
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
