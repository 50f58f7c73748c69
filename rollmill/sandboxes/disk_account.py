"""Measures the disk space of a sandbox: files that have a name, deleted files that are open, and what hides."""

from __future__ import annotations

import os
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


class DiskAccount:
    """Runs `du` over the folders: soon after the start, once a second, and at once when the file system fills.

    Files that only an open descriptor, a mapping or a socket keeps are counted where this user can see them. Where some
    may be hidden, what the file system has lost since the start, and nothing visible explains, counts as well.
    """

    def __init__(self, folders: Sequence[Path], most: int) -> None:
        self._folders = folders
        self._most = most
        self.devices = {folder.stat().st_dev for folder in folders}
        self._du: list[subprocess.Popen[bytes]] = []
        self._began = self._next = self._earliest = 0.0
        self._start = self._at_du = self._free()
        self._named: int | None = None
        self._named_before = 0
        self._unreadable = False

    @property
    def running(self) -> bool:
        """Return whether `du` runs."""
        return bool(self._du)

    def free_for(self) -> int:
        """Return the bytes that can be written before the disk can hold 1.25 times the limit."""
        return self._most * 5 // 4 - (self._named or 0) - self._lost(self._at_du)

    def due(self) -> bool:
        """Return whether it is time to count."""
        if self._du:
            return all(du.poll() is not None for du in self._du)
        now = time.monotonic()
        return now >= self._next or (now >= self._earliest and self._lost(self._at_du) > self._step())

    def exceeds(self, table: ProcessTable, processes: Sequence[Process], files: OpenFiles) -> bool:
        """Start or read `du`; return whether the files take too much, as far as is known."""
        deleted = sum(files.deleted.values())
        named = self._measure()
        if named is None:
            return deleted > self._most
        used = named + deleted
        hidden = self._lost(self._start) - max(used - self._named_before, 0)
        if used <= self._most < used + hidden:
            return files.hidden or self._unreadable or carried_in_sockets(table, processes)
        return used > self._most

    def close(self) -> None:
        """Kill the running `du`."""
        for du in self._du:
            with suppress(ProcessLookupError):
                du.kill()
            du.communicate()
        self._du = []

    def _measure(self) -> int | None:
        """Return the bytes of the files with a name; None where they are being counted."""
        now = time.monotonic()
        if not self._du:
            self._began, self._at_du = now, self._free()
            self._du = [self._start_du("-sckx"), self._start_du("-scx", "--inodes")]
            return None
        totals = []
        self._unreadable = False
        for du in self._du:
            sizes, _ = du.communicate()
            self._unreadable |= du.returncode != 0
            totals.append(int(sizes.splitlines()[-1].split()[0]) if sizes else 0)
        self._du = []
        took = now - self._began
        self._earliest = now + took
        self._next = now + max(_SHARE * took, _EVERY_S)
        first, self._named = self._named is None, totals[0] * 1024 + totals[1] * _FILE
        if first:
            self._named_before = self._named
        return self._named

    def _start_du(self, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["du", *options, "--", *map(str, self._folders)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

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
