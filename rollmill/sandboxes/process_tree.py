"""Measures the memory and CPU time of a process tree, from Linux's /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ResourceUsage:
    """Resources of one process tree at one moment."""

    pids: list[int]
    resident: int
    """Resident bytes; pages that processes share count for each of them."""
    cpu_s: float
    """User and system time, including reaped children."""


def usage(pid: int) -> ResourceUsage:
    """Return the usage of the tree under `pid`, itself included; processes that end meanwhile count as far as read."""
    pids, resident, ticks = [], 0, 0
    waiting = [pid]
    while waiting:
        process = waiting.pop()
        try:
            stat = Path(f"/proc/{process}/stat").read_bytes()
            # The process name may contain spaces and parentheses, so fields count from the last `)`: 11 to 14 are
            # the times, 21 the resident pages.
            fields = stat[stat.rindex(b")") + 2 :].split()
            ticks += sum(map(int, fields[11:15]))
            resident += int(fields[21]) * _PAGE
            pids.append(process)
            waiting += _children(process)
        except (OSError, ValueError):
            continue
    return ResourceUsage(pids, resident, ticks / _TICK)


def proportional(pids: list[int]) -> int:
    """Return the bytes that the processes hold together; a page shared among them is counted once."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
            total += int(rollup.split(b"\nPss:", 1)[1].split(None, 1)[0]) * 1024
        except (OSError, IndexError, ValueError):
            continue
    return total


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in _read(thread / "children").split()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
