"""Runs evasions in sandboxes: `python -m tests.sandboxes.evasions.attempts IMAGES ROOT USER`, with names on its input.

An ordinary user may not be able to read this interpreter's files: everything is imported before the user is changed.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import packaging.requirements  # noqa: F401  as the host does

from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.sandbox import Limits, SandboxSpec

IMAGE = "evasions"
_MIB = 1 << 20
_PR_SET_DUMPABLE = 4
_SECONDS = 30.0


@dataclass(frozen=True)
class Evasion:
    """A kind of evasion: the limits that it runs under, the one it is to be ended by, and that one in its own unit."""

    limits: Limits
    killed_by: str | None
    limit: int
    size: int = 0


@dataclass(frozen=True)
class Attempt:
    """What became of an evasion, and what it took in all."""

    name: str
    killed_by: str | None
    timed_out: bool
    taken: int
    output: str


_PROCESSES = Evasion(Limits(processes=16), None, 16)
_MEMORY = Evasion(Limits(memory_mb=64, processes=16, disk_mb=500), "memory limit of 64 MiB", 64 * _MIB, 64)
_CPU = Evasion(Limits(cpu_s=1, processes=16), "CPU limit of 1 s", 1000)
_DISK = Evasion(Limits(disk_mb=50, processes=16), "disk limit of 50 MiB", 50 * _MIB, 50)
_FILES = Evasion(Limits(disk_mb=4, processes=16), "disk limit of 4 MiB", 4 * _MIB, 4)
_REFUSED = Evasion(Limits(disk_mb=20, processes=16), None, 0, 20)

EVASIONS = {
    **dict.fromkeys(["threads", "orphans", "traced_first"], _PROCESSES),
    **dict.fromkeys(["dead_leaders", "forks", "huge_pages", "page_tables", "areas"], _MEMORY),
    **dict.fromkeys(["shared_by_children", "shared_dropped", "shared_unmapped"], _MEMORY),
    **dict.fromkeys(["shared_files", "empty_shared_files"], _MEMORY),
    **dict.fromkeys(["streams", "datagrams", "carried_sockets", "connections"], _MEMORY),
    **dict.fromkeys(["pipes", "terminals", "events", "locks", "notifications"], _MEMORY),
    **dict.fromkeys(["unwaited_long", "unwaited_short", "orphaned_burns", "ended_threads"], _CPU),
    **dict.fromkeys(["deleted_open", "deleted_mapped", "deleted_carried", "through_mappings"], _DISK),
    **dict.fromkeys(["deleted_hidden", "deleted_unreadable", "closed_folder"], _DISK),
    "tiny_files": _FILES,
    **dict.fromkeys(["allocated", "deleted_of_a_thread"], _REFUSED),
}


def attempt(host: BubblewrapHost, name: str) -> Attempt:
    """Run an evasion in a sandbox of its own."""
    evasion = EVASIONS[name]
    sandbox = host.start(SandboxSpec(image=IMAGE, limits=evasion.limits))
    try:
        done = sandbox.execute(f"./evade {name} {evasion.size}", timeout_s=_SECONDS)
        taken = int.from_bytes((sandbox._folder / "work" / "taken").read_bytes()[:8], "little")
        return Attempt(name, done.killed_by, done.timed_out, taken, done.output)
    finally:
        sandbox.close()


def main(images: str, root: str, user: str) -> None:
    """Make attempts as the user of that number, and write each as a line of JSON."""
    number = int(user)
    os.setgroups([])
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # as a program that this user has started
    sys._base_executable = "/usr/bin/python3"  # type: ignore[attr-defined]
    with BubblewrapHost(Path(images), root=Path(root), packages=[]) as host:
        for line in sys.stdin:
            sys.stdout.write(json.dumps(asdict(attempt(host, line.strip()))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
