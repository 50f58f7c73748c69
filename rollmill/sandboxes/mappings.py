"""Reads what the address spaces of processes hold beyond their resident pages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from rollmill.sandboxes.processes import Process, ProcessTable

_AREA = 288
"""Bytes of the kernel's record of a mapping (vm_area_struct and its place in the tree)."""
_LONGEST_MAPS = 512 << 10
"""Bytes of /proc/PID/maps that are read: thousands of mappings."""
_MOST_AREAS = 65_530
"""Mappings of a process with more than that (vm.max_map_count)."""
_SHARED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) (\S+) (\d+) +(/dev/zero|/SYSV\S*) \(deleted\)$", re.M)
_DELETED = re.compile(rb"^([0-9a-f]+-[0-9a-f]+) \S+ [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) (\d+) +/.* \(deleted\)$", re.M)
_BLOCK = 512


@dataclass
class Mappings:
    """Mappings of several processes."""

    areas: int = 0
    """Bytes of the kernel's records of all mappings."""
    shared: dict[int, int] = field(default_factory=dict)
    """Bytes of each shared anonymous object, by inode: it keeps pages that no page table maps."""
    unmeasured: int = 0
    """Shared objects of unknown size, at least what is mapped, since only root may ask; and unread processes."""


def read_mappings(table: ProcessTable, processes: Iterable[Process]) -> Mappings:
    """Return the mappings of the processes; those that have ended, or cannot be read, have none."""
    mappings = Mappings()
    for process in processes:
        content = table.content(f"{process.folder}/maps", _LONGEST_MAPS)
        mappings.areas += content.count(b"\n") * _AREA
        if len(content) >= _LONGEST_MAPS:
            mappings.areas += _MOST_AREAS * _AREA
            mappings.unmeasured += 1
        if b" (deleted)" not in content:
            continue
        for first, last, offset, _, inode, _ in _SHARED.findall(content):
            number = int(inode)
            mapped = int(offset, 16) + int(last, 16) - int(first, 16)
            size = _measured(table, process, f"{first.decode()}-{last.decode()}")
            if size is None:
                mappings.unmeasured += number not in mappings.shared
                size = mapped
            mappings.shared[number] = max(mappings.shared.get(number, 0), size)
    return mappings


def deleted_files(table: ProcessTable, process: Process) -> dict[tuple[int, int], int | None]:
    """Return the bytes of deleted files that are mapped, by device and inode; None for a size that is not known.

    Where there are too many mappings to read, an inode 0 stands for what the rest may hold.
    """
    files: dict[tuple[int, int], int | None] = {}
    content = table.content(f"{process.folder}/maps", _LONGEST_MAPS)
    for addresses, device, inode in _DELETED.findall(content) if b" (deleted)" in content else []:
        major, minor = (int(part, 16) for part in device.split(b":"))
        files[os.makedev(major, minor), int(inode)] = _measured(table, process, addresses.decode())
    if len(content) >= _LONGEST_MAPS:
        files[0, 0] = None
    return files


def _measured(table: ProcessTable, process: Process, addresses: str) -> int | None:
    """Return the bytes that the mapped file occupies; None where this user may not read that."""
    try:
        status = table.status(f"{process.folder.rpartition('/')[2]}/map_files/{_unpadded(addresses)}")
    except PermissionError:
        return None
    return status.st_blocks * _BLOCK if status else 0


def _unpadded(addresses: str) -> str:
    """Return the addresses as /proc/PID/map_files names them: without the leading zeros of /proc/PID/maps."""
    return "-".join(f"{int(address, 16):x}" for address in addresses.split("-"))
