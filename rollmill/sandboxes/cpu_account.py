"""Counts the CPU time of processes that end between two looks, also where nobody waits for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from rollmill.sandboxes.processes import Process

_TICK = os.sysconf("SC_CLK_TCK")
_SAMPLED_SHARE = 0.85
"""Of the sampled time that counts: it varies around the true time."""


class CpuAccount:
    """Two counts of the CPU time of a set of processes; the larger one holds.

    The kernel's count has the time of the living and of all children that their parents waited for. A process that
    ignores SIGCHLD does not get the time of its children. The sampled count adds what each process has used since the
    last look, and for a process that is new and runs, the time between the looks: such a process stands for those that
    started and ended unseen.
    """

    def __init__(self) -> None:
        self._counted = 0.0
        self._sampled = 0.0
        self._previous: dict[tuple[int, int], int] = {}
        self._last_s: float | None = None

    def add(self, processes: Sequence[Process], now_s: float, share: Callable[[Process], float]) -> float:
        """Return the CPU seconds used so far, in all.

        Args:
            processes: All processes that live.
            now_s: Monotonic time of the look.
            share: Returns the part of its life, 0 to 1, that a process which runs did not wait for a processor; 0 for
                one that does not run.
        """
        gap = 0.0 if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        ticks_now = {}
        for process in processes:
            key = (process.pid, process.started)
            ticks_now[key] = process.own_ticks
            used = (process.own_ticks - self._previous.get(key, 0)) / _TICK
            if key not in self._previous:
                used = max(used, gap * share(process))
            self._sampled += max(used, 0.0)
        self._previous = ticks_now
        ticks = sum(process.own_ticks + process.children_ticks for process in processes)
        self._counted = max(self._counted, ticks / _TICK)
        return max(self._counted, self._sampled * _SAMPLED_SHARE)


def running_share(schedule: bytes) -> float:
    """Return the part of its life that a process ran rather than waited, from its /proc/PID/schedstat; 1 if unknown."""
    fields = schedule.split()
    if len(fields) < 2:
        return 1.0
    ran, waited = int(fields[0]), int(fields[1])
    return ran / (ran + waited) if ran + waited else 1.0
