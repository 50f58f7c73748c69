"""Lists the processes of a PID namespace from outside, where they cannot hide: in the namespace's own /proc."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST_FILE = 1 << 20
_PIECE = 1 << 16
_SMALL_FILE = 2048
"""A first piece below this size is the whole file: the kernel fills pages."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process at one moment. `folder`: of it, or of a thread that lives where its first thread has ended."""

    pid: int
    parent: int
    folder: str
    state: str
    """As in ps(1): R runs, S sleeps, D waits for the kernel, Z has ended."""
    started: int
    """Ticks since the machine's start; with `pid` it identifies the process."""
    own_ticks: int
    """User and system time of all its threads, ended ones included."""
    children_ticks: int
    """Time of its children that have ended and that it waited for."""
    threads: int
    mapped: int
    """Bytes of its address space."""
    resident: int
    """Bytes in memory; pages that processes share count for each of them."""
    stack: int
    """Address of its first stack frame, which differs between programs."""


class ProcessTable:
    """The processes of the namespace whose first process is `pid`, or a child of `pid`.

    The namespace's /proc is read through its first process. A list made by parents and children would miss processes
    whose parent has just ended.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._proc = -1
        self._root = -1

    @property
    def opened(self) -> bool:
        """Return whether the namespace's /proc is open."""
        return self._proc >= 0

    def read(self) -> list[Process]:
        """Return all processes; none before the namespace is made and after it has ended."""
        if not self._open():
            return []
        processes = []
        for name in self.names(""):
            if name.isdigit():
                process = self._process(name)
                if process:
                    processes.append(process)
        return processes

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder of /proc. Raises `PermissionError`; a folder that does not exist is empty."""
        try:
            file = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._proc)
        except PermissionError:
            raise
        except OSError:
            return []
        try:
            return os.listdir(file)  # noqa: PTH208  of an open folder
        except OSError:
            return []
        finally:
            os.close(file)

    def content(self, name: str, most: int = _LONGEST_FILE) -> bytes:
        """Return the content of a file of /proc, not much more than `most` bytes; empty where it cannot be read."""
        content = b""
        with suppress(OSError):
            file = os.open(name, os.O_RDONLY, dir_fd=self._proc)
            try:
                content = piece = os.read(file, _PIECE)
                if len(piece) < _SMALL_FILE:
                    return content
                pieces, length = [content], len(content)
                while (piece := os.read(file, _PIECE)) and length < most:
                    pieces.append(piece)
                    length += len(piece)
                content = b"".join(pieces)
            finally:
                os.close(file)
        return content

    def runs(self, process: Process) -> bool:
        """Return whether a thread of a process runs: its first thread may sleep meanwhile."""
        if process.state == "R" or process.threads == 1:
            return process.state == "R"
        return any(self._fields(f"{thread}/stat")[:1] == [b"R"] for thread in self._threads(str(process.pid)))

    def status(self, path: str) -> os.stat_result | None:
        """Return the status of the file that a link of /proc leads to; None where there is none.

        Raises `PermissionError`.
        """
        try:
            return os.stat(path, dir_fd=self._proc)
        except PermissionError:
            raise
        except OSError:
            return None

    def link(self, path: str) -> str:
        """Return what a link of /proc says; empty where there is none."""
        try:
            return os.readlink(path, dir_fd=self._proc)
        except OSError:
            return ""

    def system(self, path: str) -> os.statvfs_result | None:
        """Return the file system at a path from the namespace's root; None where there is none."""
        with suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._root)
            try:
                return os.statvfs(file)
            finally:
                os.close(file)
        return None

    def entries(self, path: str) -> list[str]:
        """Return the names in a folder at a path from the namespace's root."""
        with suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._root)
            try:
                return os.listdir(file)  # noqa: PTH208  of an open folder
            finally:
                os.close(file)
        return []

    def kill(self) -> None:
        """Kill the processes at once, as far as parents and children lead to them.

        If only the namespace's first process is killed, the others go on until it has run once more.
        """
        if self._proc < 0:
            return
        try:
            namespace = os.stat("1/ns/pid", dir_fd=self._proc).st_ino
        except OSError:  # it has ended
            return
        waiting = _children(self._pid)
        while waiting:
            pid = waiting.pop()
            waiting += _children(pid)
            with suppress(OSError):
                file = os.pidfd_open(pid)
                try:
                    if Path(f"/proc/{pid}/ns/pid").stat().st_ino == namespace:
                        signal.pidfd_send_signal(file, signal.SIGKILL)
                finally:
                    os.close(file)

    def close(self) -> None:
        """Close the namespace's files."""
        for file in (self._proc, self._root):
            if file >= 0:
                os.close(file)
        self._proc = self._root = -1

    def _open(self) -> bool:
        """Open the namespace's /proc once it is mounted; return whether it is open."""
        if self._proc >= 0:
            return True
        for pid in (self._pid, *_children(self._pid)):
            root = proc = -1
            with suppress(OSError):
                root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
                proc = os.open("proc", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
                namespace = Path(f"/proc/{pid}/ns/pid").stat().st_ino
                # Before bwrap has changed the root folder, this is the host's /proc.
                if os.stat("1/ns/pid", dir_fd=proc).st_ino == namespace != Path("/proc/self/ns/pid").stat().st_ino:
                    self._proc, self._root = proc, root
                    return True
            for file in (root, proc):
                if file >= 0:
                    os.close(file)
        return False

    def _process(self, name: str) -> Process | None:
        fields = self._fields(f"{name}/stat")
        if not fields:
            return None
        folder = name
        memory = fields
        if fields[0] == b"Z" and int(fields[17]) > 1:
            # The first thread has ended and shows no memory and no files; the other threads have them.
            for thread in self._threads(name):
                others = self._fields(f"{thread}/stat")
                if others and others[0] not in b"ZX":
                    folder, memory = thread, others
                    break
        return Process(
            pid=int(name),
            parent=int(fields[1]),
            folder=folder,
            state=fields[0].decode(),
            started=int(fields[19]),
            own_ticks=int(fields[11]) + int(fields[12]),
            children_ticks=int(fields[13]) + int(fields[14]),
            threads=int(fields[17]),
            mapped=int(memory[20]),
            resident=int(memory[21]) * _PAGE,
            stack=int(memory[25]),
        )

    def _threads(self, name: str) -> Iterator[str]:
        with suppress(PermissionError):
            yield from (f"{name}/task/{thread}" for thread in self.names(f"{name}/task"))

    def _fields(self, path: str) -> list[bytes]:
        """Return the fields of a `stat` file from the state on: the program's name may contain anything."""
        content = self.content(path)
        return content[content.rindex(b")") + 2 :].split() if b")" in content else []


def _children(pid: int) -> list[int]:
    with suppress(OSError, ValueError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split()]
    return []
