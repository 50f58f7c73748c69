"""Enforces a command's limits while it runs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rollmill.sandboxes.process_tree import proportional, usage
from rollmill.sandboxes.sandbox import Limits

_EVERY_S = 0.05
_DISK_EVERY_S = 1.0
_DISK_SHARE = 20
"""`du` may run for at most 1/20 of the time."""
_MIB = 1 << 20


class Watch:
    """Enforces the limits of the processes under `pid` and of the files in `folders`."""

    def __init__(self, pid: int, limits: Limits, folders: Sequence[Path]) -> None:
        self._pid = pid
        self._limits = limits
        self._disk = _DiskWatch(folders, limits.disk_mb)
        self._next = time.monotonic() + _EVERY_S

    def due_s(self) -> float:
        """Return the seconds until the next check is due."""
        return max(self._next - time.monotonic(), 0.0)

    def broken(self) -> str | None:
        """Return the limit that is exceeded, in words; None where none is."""
        if self.due_s() > 0:
            return None
        current = usage(self._pid)
        self._next = time.monotonic() + _EVERY_S
        most = self._limits.memory_mb * _MIB
        # Shared pages count once, but that is expensive to measure: only where the upper bound exceeds the limit.
        if current.resident > most and proportional(current.pids) > most:
            return f"memory limit of {self._limits.memory_mb} MiB"
        if current.cpu_s > self._limits.cpu_s:
            return f"CPU limit of {self._limits.cpu_s:g} s"
        if self._disk.broken():
            return f"disk limit of {self._limits.disk_mb} MiB"
        return None

    def cpu_s(self) -> float:
        """Return the CPU seconds that the processes used so far."""
        return usage(self._pid).cpu_s

    def close(self) -> None:
        """Kill the running `du`."""
        self._disk.close()


class _DiskWatch:
    """Runs `du` over the files: once a second, and at once when the file system's use has grown by much."""

    def __init__(self, folders: Sequence[Path], most_mb: int) -> None:
        self._folders = folders
        self._most_mb = most_mb
        self._du: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._next = self._began + _DISK_EVERY_S
        self._earliest = 0.0
        self._free = self._free_bytes()

    def broken(self) -> bool:
        now = time.monotonic()
        if self._du is None:
            filled = self._free - self._free_bytes() > self._most_mb * _MIB // 8
            if now >= self._next or (filled and now >= self._earliest):
                self._began, self._free = now, self._free_bytes()
                self._du = subprocess.Popen(
                    ["du", "-scmx", "--", *map(str, self._folders)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            return False
        if self._du.poll() is None:
            return False
        sizes, _ = self._du.communicate()
        self._du = None
        took = now - self._began
        self._earliest = now + _DISK_SHARE * took
        self._next = max(self._earliest, now + _DISK_EVERY_S)
        return bool(sizes) and int(sizes.splitlines()[-1].split()[0]) > self._most_mb

    def close(self) -> None:
        if self._du:
            with suppress(ProcessLookupError):
                self._du.kill()
            self._du.communicate()
            self._du = None

    def _free_bytes(self) -> int:
        system = os.statvfs(self._folders[0])
        return system.f_bavail * system.f_frsize
