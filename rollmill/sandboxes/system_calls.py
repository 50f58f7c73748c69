"""System calls that a bubblewrap sandbox does not have, as a seccomp filter.

They hold memory that counts for no process (memory files, System V shared memory), keys of the user that the host
keeps, or are much of the kernel that no program under test needs. As Docker's own profile does, they answer ENOSYS,
which programs take for an older kernel.
"""

from __future__ import annotations

import errno
import platform
import struct

_NUMBERS = {
    "x86_64": {
        "shmget": 29, "add_key": 248, "request_key": 249, "keyctl": 250, "perf_event_open": 298, "memfd_create": 319,
        "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "memfd_secret": 447,
    },
    "aarch64": {
        "shmget": 194, "add_key": 217, "request_key": 218, "keyctl": 219, "perf_event_open": 241, "memfd_create": 279,
        "bpf": 280, "userfaultfd": 282, "io_uring_setup": 425, "memfd_secret": 447,
    },
}  # fmt: skip
"""From the kernel's syscall_64.tbl and asm-generic/unistd.h."""
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of linux/audit.h: a program of another one would come by other numbers."""
_FIRST_OF_X32 = 0x40000000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_AT_NUMBER, _AT_ARCHITECTURE = 0, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOSYS


def filter_program(machine: str | None = None) -> bytes:
    """The filter for this machine's kind of processor, as `struct sock_filter`s; empty for one that is not known."""
    machine = machine or platform.machine()
    if machine not in _NUMBERS:
        return b""
    numbers = sorted(_NUMBERS[machine].values())
    last = len(numbers)  # jumps go over what is left of the list, to the refusal at its end
    program = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_IF_EQUAL, 0, last + 3, _ARCHITECTURE[machine]),
        (_LOAD, 0, 0, _AT_NUMBER),
        (_IF_AT_LEAST, last + 1, 0, _FIRST_OF_X32),
        *((_IF_EQUAL, last - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in program)
