"""Measures the memory that the processes of a namespace hold together, at a bounded cost."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence

from rollmill.sandboxes.kernel_memory import KernelMemory
from rollmill.sandboxes.mappings import read_mappings
from rollmill.sandboxes.processes import Process, ProcessTable

_PAGES_PER_TABLE = 512
"""Pages of an address space to one page of its page table."""
_SMALL_TABLE = 1 << 20
_LONGEST_S = 0.5
"""Longest time between two readings of mappings, and that an exact size is used for."""
_READING_SHARE = 20
"""Reading mappings may take 1/20 of the time, and more only while the machine's free memory shrinks."""
_EXACT_PAUSE = 4
"""Measuring exactly may take 1/5 of the time, and more only while the machine's free memory shrinks."""


class MemoryAccount:
    """Says whether the processes hold more than `most` bytes.

    First an upper bound is made, of what costs little to read: resident pages, counted for each process, page tables by
    the size of the address spaces, and `KernelMemory`. Mappings are read twice a second, and at once where the address
    spaces could hold more than the limit or the machine loses memory. What processes really share is read only where
    the bound exceeds the limit.
    """

    def __init__(self, table: ProcessTable, most: int) -> None:
        self._table = table
        self._most = most
        self._kernel = KernelMemory()
        self._memory = FreeMemory()
        self._before = self._memory.available()
        self._hidden = 0
        self._areas = 0
        self._mapped = -1
        self._read_s = 0.0
        self._next_s = 0.0
        self._exact: int | None = None
        self._exact_rss: dict[int, int] = {}
        self._exact_s = self._exact_next_s = 0.0
        self._exact_free = self._before
        self.bound = 0
        """Upper bound in bytes, of the last look."""
        self.open_files = 0
        """Bytes of the kernel's for open files, as last read."""

    def exceeds(self, processes: Sequence[Process]) -> bool:
        """Return whether the processes hold too much."""
        mapped = sum(process.mapped for process in processes)
        resident = sum(process.resident for process in processes)
        kernel = self._kernel.bound(self._table, processes)
        tables = sum(map(self._page_tables, processes))
        self._read_mappings(processes, mapped, kernel)
        others = kernel + tables + self.open_files + self._areas + self._hidden
        self.bound = resident + others + self._swapped(processes)
        if self.bound <= self._most or others > self._most:
            return self.bound > self._most
        estimate = self._estimate(processes)
        if estimate is not None and estimate + others <= self._most:
            return False
        began = time.monotonic()
        self._exact = proportional(self._table, processes, self._most - others)
        self._exact_rss = {process.pid: process.resident for process in processes}
        self._exact_free = self._memory.available()
        self._exact_s = time.monotonic()
        self._exact_next_s = self._exact_s + _EXACT_PAUSE * (self._exact_s - began)
        return self._exact + others > self._most

    def shrunk(self) -> int:
        """Return the bytes by which the machine's free memory has shrunk since the command began."""
        return self._before - self._memory.available()

    def close(self) -> None:
        """Close the files."""
        self._memory.close()

    def _read_mappings(self, processes: Sequence[Process], mapped: int, kernel: int) -> None:
        """Update what mappings hide: shared objects beyond their resident pages, and the records of mappings.

        Address spaces that are smaller than the limit can do so, too, where an object is larger than its mapping.
        """
        now = time.monotonic()
        shrinks = self.shrunk() > self.bound + self._most // 8
        large = mapped + kernel > self._most and mapped != self._mapped
        due = large or shrinks or now >= self._read_s + _LONGEST_S
        if not due or (now < self._next_s and not shrinks):
            return
        self._mapped = mapped
        mappings = read_mappings(self._table, processes)
        self._areas = mappings.areas
        self._hidden = sum(mappings.shared.values())
        if mappings.unmeasured:
            # An object may be larger than its mapping: it then accounts for memory that the machine has lost.
            resident = sum(process.resident for process in processes)
            lost = self.shrunk() - resident - mappings.areas
            self._hidden = max(self._hidden, min(lost, mappings.unmeasured * self._most))
        self._read_s = time.monotonic()
        self._next_s = self._read_s + _READING_SHARE * (self._read_s - now)

    def _estimate(self, processes: Sequence[Process]) -> int | None:
        """Return an upper bound from the last exact size and what each process has grown by; None where it is old."""
        now = time.monotonic()
        if self._exact is None or now > max(self._exact_s + _LONGEST_S, self._exact_next_s):
            return None
        grown = sum(max(process.resident - self._exact_rss.get(process.pid, 0), 0) for process in processes)
        shrunk = self._exact_free - self._memory.available()
        if now < self._exact_next_s and shrunk < self._most // 16:
            return self._exact  # an exact size is expensive for many processes, and the machine has not lost memory
        return self._exact + grown

    def _page_tables(self, process: Process) -> int:
        most = process.mapped // _PAGES_PER_TABLE
        return most if most <= _SMALL_TABLE else _kib(self._table.content(f"{process.folder}/status"), b"VmPTE")

    def _swapped(self, processes: Sequence[Process]) -> int:
        if not self._memory.swaps():
            return 0
        return sum(_kib(self._table.content(f"{process.folder}/status"), b"VmSwap") for process in processes)


class FreeMemory:
    """The machine's available memory, from /proc/meminfo."""

    def __init__(self) -> None:
        self._file = os.open("/proc/meminfo", os.O_RDONLY)

    def available(self) -> int:
        """Return the bytes that processes can still be given, from free pages and the page cache."""
        return _kib(os.pread(self._file, 4096, 0), b"MemAvailable")

    def swaps(self) -> bool:
        """Return whether the machine has swap space."""
        return _kib(os.pread(self._file, 4096, 0), b"SwapTotal") > 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def proportional(table: ProcessTable, processes: Sequence[Process], most: int) -> int:
    """Return the bytes that the processes hold together, in memory and in swap; if above `most`, at least that many.

    A page that they share counts once. Shared anonymous memory and files in /dev/shm are left out: their objects
    count elsewhere, whole.
    """
    total = 0
    for process in _distinct(processes):
        if total > most:
            break
        rollup = table.content(f"{process.folder}/smaps_rollup")
        if b"Pss_Anon" in rollup:
            total += sum(_kib(rollup, name) for name in (b"Pss_Anon", b"Pss_File", b"SwapPss"))
        elif rollup:
            total += _kib(rollup, b"Pss") + _kib(rollup, b"SwapPss")
        else:  # the process has just ended, or hides from this user
            total += process.resident
    return total


def _distinct(processes: Sequence[Process]) -> list[Process]:
    """Return the processes without children of vfork, which borrow the address space of their parent.

    The parent waits in the state D until such a child has started a program or ended, so it has only one.
    """
    borrowing = set()
    for parent in processes:
        if parent.state == "D":
            alike = [
                child
                for child in processes
                if (child.parent, child.mapped, child.stack) == (parent.pid, parent.mapped, parent.stack)
            ]
            if alike:
                borrowing.add(min(alike, key=lambda child: abs(child.resident - parent.resident)).pid)
    return [process for process in processes if process.pid not in borrowing]


def _kib(content: bytes, name: bytes) -> int:
    """Return the bytes of a line `NAME:  123 kB`; 0 where there is none."""
    match = re.search(rb"^%s:\s+(\d+) kB" % name, content, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
