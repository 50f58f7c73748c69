"""Measures the disk space of a sandbox: files that have a name, deleted files that are open, and what hides."""

from __future__ import annotations

import operator
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rollmill.sandboxes.open_files import OpenFiles, carried_in_sockets
from rollmill.sandboxes.processes import Process, ProcessTable

_EVERY_S = 1.0
_SHARE = 20
"""`du` may run for 1/20 of the time; for half of it while the file system fills."""
_FILE = 1 << 10
"""Bytes that a file counts beside its blocks: its inode and name."""
_COUNT = 'du -sckx -- "$@"; blocks=$?; du -scx --inodes -- "$@" && exit $blocks'
_UNITS = (1 << 10, _FILE)
"""Bytes of the units that these two count."""


class DiskAccount:
    """Runs `du` over the folders: soon after the start, once a second, and at once when the file system fills.

    Files that only an open descriptor, a mapping or a socket keeps are counted where this user can see them. Where some
    may be hidden, what the file system has lost since the start, and nothing visible explains, counts as well.
    """

    def __init__(self, folders: Sequence[Path], most: int) -> None:
        self._folders = folders
        self._most = most
        self.devices = frozenset(folder.stat().st_dev for folder in folders)
        self._du: subprocess.Popen[bytes] | None = None
        self._began = self._next = self._earliest = 0.0
        # In a user namespace of its own, an ordinary user may read folders that are closed even to their owner.
        unshare = shutil.which("unshare") if os.geteuid() else None
        self._as_owner = [unshare, "--map-root-user", "--"] if unshare else []
        self._start = self._at_du = self._at_look = self._free()
        self._named: int | None = None
        self._named_before = 0
        self._unreadable = False

    @property
    def running(self) -> bool:
        """Return whether `du` runs."""
        return self._du is not None

    def free_for(self) -> int:
        """Return the bytes that can be written before the files take a ninth more than allowed."""
        return self._most * 10 // 9 - (self._named or 0) - self._lost(self._at_du)

    def due(self) -> bool:
        """Return whether it is time to count."""
        if self._lost(self._at_look) > self._step():
            return True
        if self._du:
            return self._du.poll() is not None
        now = time.monotonic()
        return now >= self._next or (now >= self._earliest and self._lost(self._at_du) > self._step())

    def exceeds(self, table: ProcessTable, processes: Sequence[Process], files: OpenFiles) -> bool:
        """Start or read `du`; return whether the files take too much, as far as is known."""
        self._at_look = self._free()
        deleted = sum(files.deleted.values())
        self._measure()
        # While `du` runs, its last result stands; what was written since then may seem hidden, but is as large.
        used = (self._named or 0) + deleted
        hidden = self._lost(self._start) - max(used - self._named_before, 0)
        if used <= self._most < used + hidden:
            return files.hidden or self._unreadable or carried_in_sockets(table, processes)
        return used > self._most

    def close(self) -> None:
        """Kill the running `du`."""
        if self._du:
            with suppress(ProcessLookupError):
                os.killpg(self._du.pid, signal.SIGKILL)
            self._du.communicate()
            self._du = None

    def _measure(self) -> None:
        """Start to count the files with a name, or read the result."""
        now = time.monotonic()
        if self._du is None:
            self._began, self._at_du = now, self._free()
            self._du = subprocess.Popen(
                [*self._as_owner, "/bin/sh", "-c", _COUNT, "du", *map(str, self._folders)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            return
        if self._du.poll() is None:
            return
        output, _ = self._du.communicate()
        self._unreadable = self._du.returncode != 0
        self._du = None
        totals = [int(line.split()[0]) for line in output.splitlines() if line.endswith(b"\ttotal")]
        took = now - self._began
        self._earliest = now + took
        self._next = now + max(_SHARE * took, _EVERY_S)
        if len(totals) == len(_UNITS):
            first, self._named = self._named is None, sum(map(operator.mul, totals, _UNITS))
            if first:
                self._named_before = self._named

    def _step(self) -> int:
        """Return the bytes by which the file system fills before the files are counted again."""
        return max((self._most - (self._named or 0)) // 4, self._most // 16)

    def _lost(self, since: tuple[int, int]) -> int:
        """Return the bytes that the file system has lost, in blocks and in inodes."""
        space, inodes = self._free()
        return max(since[0] - space, 0) + max(since[1] - inodes, 0) * _FILE

    def _free(self) -> tuple[int, int]:
        system = os.statvfs(self._folders[0])
        return system.f_bavail * system.f_frsize, system.f_ffree
