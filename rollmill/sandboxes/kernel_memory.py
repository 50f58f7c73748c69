"""Bounds the kernel's memory that a namespace holds in objects which belong to no process's resident memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rollmill.sandboxes.processes import Process, ProcessTable

_KIB = 1 << 10
_PAGE = 4096
THREAD = 32 * _KIB
"""Stack in the kernel, task and bookkeeping of a thread."""
_SOCKET = 320 * _KIB
"""A buffer of default size (net.core.wmem_default, 208 KiB) and one more message; the filter keeps the size."""
_UDP_SOCKET = 448 * _KIB
_WAITING_SOCKET = 512
"""Of a closed TCP connection in the state TIME_WAIT."""
_TERMINAL = 1344 * _KIB
"""Two tty buffers of 640 KiB (TTYB_DEFAULT_MEM_LIMIT) and the line discipline's."""
_TMPFS_FILE = 2 * _KIB
_TCP_BUFFERS = Path("/proc/sys/net/ipv4")


class KernelMemory:
    """Sockets, pseudo-terminals and files in /dev/shm of a namespace: an upper bound that costs some microseconds.

    Sockets count by their number, which includes closed ones that still hold data and those on their way in another
    socket. TCP's buffers grow by themselves: they count as what all TCP sockets of the machine have grown by since
    the command began, as far as the namespace's own can hold it.
    """

    def __init__(self) -> None:
        self._tcp_before: int | None = None
        self._tcp_socket = sum(_largest(_TCP_BUFFERS / name) for name in ("tcp_rmem", "tcp_wmem"))

    def bound(self, table: ProcessTable, processes: Sequence[Process]) -> int:
        """Return the bytes."""
        threads = sum(process.threads for process in processes) * THREAD
        terminals = sum(name.isdigit() for name in table.entries("dev/pts")) * _TERMINAL
        return threads + terminals + self._sockets(table) + _shared_memory(table)

    def _sockets(self, table: ProcessTable) -> int:
        content = table.content("1/net/sockstat")
        used = _number(content, rb"sockets: used (\d+)")
        tcp_memory = _number(content, rb"\nTCP:.* mem (\d+)") * _PAGE
        if self._tcp_before is None:
            self._tcp_before = tcp_memory
        self._tcp_before = min(self._tcp_before, tcp_memory)
        if not used:
            return 0
        udp = _number(content, rb"\nUDP: inuse (\d+)")
        tcp = _number(content, rb"\nTCP: inuse (\d+)")
        content = table.content("1/net/sockstat6")
        udp += _number(content, rb"UDP6: inuse (\d+)")
        tcp += _number(content, rb"TCP6: inuse (\d+)")
        waiting = _number(content, rb"\nTCP:.* tw (\d+)") * _WAITING_SOCKET
        tcp_bytes = min(tcp_memory - self._tcp_before, tcp * self._tcp_socket)
        return max(used - udp - tcp, 0) * _SOCKET + udp * _UDP_SOCKET + tcp_bytes + waiting


def _shared_memory(table: ProcessTable) -> int:
    system = table.system("dev/shm")
    if system is None:
        return 0
    return (system.f_blocks - system.f_bfree) * system.f_frsize + (system.f_files - system.f_ffree) * _TMPFS_FILE


def _number(content: bytes, pattern: bytes) -> int:
    match = re.search(pattern, content)
    return int(match[1]) if match else 0


def _largest(path: Path) -> int:
    """Return the last of the three numbers of a TCP buffer's size."""
    try:
        return int(path.read_text().split()[-1])
    except (OSError, IndexError, ValueError):
        return 64 << 20
