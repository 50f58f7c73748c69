"""Counts what open files of processes hold: deleted files, which no folder lists, and memory of the kernel."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from rollmill.sandboxes.mappings import deleted_files
from rollmill.sandboxes.processes import Process, ProcessTable

_BLOCK = 512
_KIB = 1 << 10
_FILE = 1 * _KIB
_PIPE = 65 * _KIB
"""16 pages and their records: the filter keeps the size that a pipe begins with."""
_INOTIFY = 16_384 * 512
"""A full queue of events (fs.inotify.max_queued_events) with long names."""
_WATCHED = 1280
"""An inotify watch, and the inode that it keeps in memory."""
_LOCK = 256
"""A lock of a range of a file; /proc/locks lists those of the namespace."""
_LONGEST_LOCKS = 128 << 10
"""Bytes of /proc/locks that are read, 2,000 locks: reading takes time that grows with the square of their number."""
_MANY_LOCKS = 1 << 40
"""What more locks count: no program under test needs them."""
_POLLED = 256
"""An entry of an epoll instance."""


@dataclass
class OpenFiles:
    """Open files of a namespace's processes."""

    deleted: dict[tuple[int, int], int] = field(default_factory=dict)
    """Bytes on disk of each deleted file, by device and inode."""
    kernel: int = 0
    """Upper bound in bytes of the kernel's memory for them."""
    devices: frozenset[int] = frozenset()
    """Device numbers of the file systems whose deleted files count."""
    hidden: bool = False
    """Whether there may be files that this user cannot count: of a process that hides, mapped, or in a socket."""


def read_open_files(table: ProcessTable, processes: Sequence[Process], devices: frozenset[int]) -> OpenFiles:
    """Return the open files of all processes.

    Args:
        table: Of the namespace.
        processes: The processes.
        devices: Device numbers of the file systems whose deleted files count.
    """
    files = OpenFiles(devices=devices)
    pipes: set[int] = set()
    for process in processes:
        try:
            names = table.names(f"{process.folder}/fd")
        except PermissionError:
            files.hidden = True
            continue
        for name in names:
            with suppress(PermissionError):
                _add(files, pipes, table, process, name, len(names))
                files.kernel += _FILE
        for key, size in deleted_files(table, process).items():
            if size is None:
                files.hidden |= key[0] in devices | {0} and key not in files.deleted
            elif key[0] in devices:
                files.deleted[key] = size
    files.kernel += len(pipes) * _PIPE
    locks = table.content("locks", _LONGEST_LOCKS)
    files.kernel += locks.count(b"\n") * _LOCK if len(locks) < _LONGEST_LOCKS else _MANY_LOCKS
    return files


def _add(files: OpenFiles, pipes: set[int], table: ProcessTable, process: Process, name: str, open_files: int) -> None:
    """Add what an open file holds. Raises `PermissionError` where this user may not see it.

    Args:
        files: The sums so far.
        pipes: Inodes of the pipes so far, each of which counts once.
        table: Of the namespace.
        process: The process that has it open.
        name: Its file descriptor.
        open_files: Number of open files of the process.
    """
    status = table.status(f"{process.folder}/fd/{name}")
    if status is None:
        return
    if status.st_dev in files.devices:
        if not status.st_nlink:  # folders and links, too
            files.deleted[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK + _KIB
    elif stat.S_ISSOCK(status.st_mode):
        files.kernel += _carried(table, process, name) * _INOTIFY
    elif stat.S_ISFIFO(status.st_mode):
        pipes.add(status.st_ino)
    elif not stat.S_IFMT(status.st_mode):
        files.kernel += _anonymous(table, process, name, open_files)


def carried_in_sockets(table: ProcessTable, processes: Sequence[Process]) -> bool:
    """Return whether files are on their way in sockets, where no table of open files lists them."""
    sockets: set[int] = set()
    for process in processes:
        with suppress(PermissionError):
            for name in table.names(f"{process.folder}/fd"):
                link = table.link(f"{process.folder}/fd/{name}")
                if not link.startswith("socket:"):
                    continue
                sockets.add(int(link[8:-1]))
                if _carried(table, process, name):
                    return True
    used = re.search(rb"sockets: used (\d+)", table.content("1/net/sockstat"))
    return used is not None and int(used[1]) > len(sockets)


def _carried(table: ProcessTable, process: Process, name: str) -> int:
    """Return the number of files that wait in a socket to be received: each may be the largest kind there is.

    Args:
        table: Of the namespace.
        process: The process that has the socket open.
        name: Its file descriptor.
    """
    match = re.search(rb"^scm_fds:\s+(\d+)", table.content(f"{process.folder}/fdinfo/{name}"), re.MULTILINE)
    return int(match[1]) if match else 0


def _anonymous(table: ProcessTable, process: Process, name: str, open_files: int) -> int:
    """Return the bytes of an epoll instance or an inotify instance beyond those of any file.

    Args:
        table: Of the namespace.
        process: The process that has it open.
        name: Its file descriptor.
        open_files: Number of open files of the process.
    """
    link = table.link(f"{process.folder}/fd/{name}")
    if "inotify" in link:
        return _INOTIFY + table.content(f"{process.folder}/fdinfo/{name}").count(b"inotify") * _WATCHED
    return open_files * _POLLED if "eventpoll" in link else 0
