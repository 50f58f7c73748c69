"""Enforces a command's limits while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from rollmill.sandboxes.cpu_account import CpuAccount, running_share
from rollmill.sandboxes.disk_account import DiskAccount
from rollmill.sandboxes.memory_account import MemoryAccount
from rollmill.sandboxes.open_files import read_open_files
from rollmill.sandboxes.processes import Process, ProcessTable
from rollmill.sandboxes.sandbox import Limits, SandboxError
from rollmill.sandboxes.start_limits import OWN_PROCESSES

_LONGEST_S = 0.05
_SHORTEST_S = 0.004
_COUNTING_DISK_S = 0.01
_SHARE = 20
"""Looks may take 1/20 of the time; more only while the machine's free memory shrinks."""
_FILES_EVERY_S = 1.0
_LONGEST_START_S = 10.0
_MIB = 1 << 20
_MEMORY_PER_S = (8 << 30) * min(os.cpu_count() or 1, 16)
"""Twice the bytes that programs may fill per second: 4 GiB for each processor, as far as memory is that fast."""
_DISK_PER_S = 4 << 30
"""Twice the bytes that programs may write per second into the page cache."""


class Watch:
    """Enforces the limits of the processes of the namespace that bwrap (`pid`) makes, and of the files in `folders`.

    Looks are the more frequent, the sooner a limit could be exceeded by a quarter, as far as their cost and the
    scheduling of this process allow: often where limits are small or nearly reached, rarely otherwise.
    """

    def __init__(self, pid: int, limits: Limits, folders: Sequence[Path]) -> None:
        self._limits = limits
        self._table = ProcessTable(pid)
        self._memory = MemoryAccount(self._table, limits.memory_mb * _MIB)
        self._cpu = CpuAccount()
        # One file may be as large as the limit, and the tree beside it takes some space.
        self._disk = DiskAccount(folders, limits.disk_mb * _MIB * 9 // 8)
        self._started = time.monotonic()
        self._next = self._started + self._interval_s()
        self._earliest = 0.0
        self._files_next = 0.0
        self._shrunk = 0

    def due_s(self) -> float:
        """Return the seconds until the next check is due."""
        return max(self._next - time.monotonic(), 0.0)

    def broken(self) -> str | None:
        """Return the limit that is exceeded, in words, and kill the processes then; None where none is.

        Raises `SandboxError` where the processes cannot be seen.
        """
        if self.due_s() > 0:
            return None
        began = time.monotonic()
        reason = self._look(began) if began >= self._earliest or self._shrinks() else None
        if reason:
            self._table.kill()
        self._next = time.monotonic() + self._interval_s()
        return reason

    def close(self) -> None:
        """Close all files, and kill the running `du`."""
        self._disk.close()
        self._memory.close()
        self._table.close()

    def _look(self, began: float) -> str | None:
        limits = self._limits
        processes = self._table.read()
        if not processes:
            if not self._table.opened and began > self._started + _LONGEST_START_S:
                raise SandboxError(
                    "the processes of a sandbox cannot be counted: its /proc cannot be read", type_="start"
                )
            return None
        self._shrunk = self._memory.shrunk()
        if sum(process.threads for process in processes) > limits.processes + OWN_PROCESSES:
            return f"limit of {limits.processes} processes"
        used_s = self._cpu.add(processes, began, self._share_of_time)
        disk_due = self._disk.due()
        if disk_due or began >= self._files_next or self._shrunk > self._memory.bound + limits.memory_mb * _MIB // 8:
            files = read_open_files(self._table, processes, self._disk.devices)
            took = time.monotonic() - began
            self._files_next = began + max(_FILES_EVERY_S, _SHARE * took)
            self._memory.open_files = files.kernel
            if disk_due and self._disk.exceeds(self._table, processes, files):
                return f"disk limit of {limits.disk_mb} MiB"
        if self._memory.exceeds(processes):
            return f"memory limit of {limits.memory_mb} MiB"
        if used_s > limits.cpu_s:
            return f"CPU limit of {limits.cpu_s:g} s"
        self._earliest = time.monotonic() + _SHARE * (time.monotonic() - began)
        return None

    def cpu_s(self) -> float:
        """Return the CPU seconds that the processes used so far."""
        return self._cpu.add(self._table.read(), time.monotonic(), self._share_of_time)

    def _share_of_time(self, process: Process) -> float:
        if not self._table.runs(process):
            return 0.0
        return running_share(self._table.content(f"{process.folder}/schedstat"))

    def _shrinks(self) -> bool:
        """Return whether the machine has lost much memory, or the file system much space, since the last look."""
        return self._memory.shrunk() - self._shrunk > self._unseen() // 4 or self._disk.due()

    def _unseen(self) -> int:
        """Return the bytes by which memory may still grow to reach 1.25 times the limit."""
        return max(self._limits.memory_mb * _MIB * 5 // 4 - self._memory.bound, _MIB)

    def _interval_s(self) -> float:
        fastest = min(self._unseen() / _MEMORY_PER_S, self._disk.free_for() / _DISK_PER_S)
        longest = _COUNTING_DISK_S if self._disk.running else _LONGEST_S
        return min(max(fastest, _SHORTEST_S), longest)
