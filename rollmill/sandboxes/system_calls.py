"""Builds the seccomp filter of a bubblewrap sandbox.

It denies system calls that allocate memory which counts for no process (memfd, System V shared memory), that reach the
host's keyrings, or that expose large parts of the kernel which no program under test needs. As in Docker's profile,
they return ENOSYS, which programs take for an older kernel. A compute-only process is also denied the calls that start,
signal, change or inspect processes, open sockets or message queues, or make files writable.
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
_OF_PROCESSES = {
    "x86_64": {
        "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "clone3": 435, "execveat": 322, "kill": 62, "tkill": 200,
        "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_send_signal": 424, "pidfd_open": 434,
        "pidfd_getfd": 438, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "process_madvise": 440,
        "process_mrelease": 448, "kcmp": 312, "prlimit64": 302, "setpriority": 141, "sched_setparam": 142,
        "sched_setscheduler": 144, "sched_setaffinity": 203, "sched_setattr": 314, "ioprio_set": 251,
        "migrate_pages": 256, "move_pages": 279, "setns": 308, "unshare": 272, "mount": 165, "socket": 41,
        "socketpair": 53, "msgget": 68, "semget": 64, "mq_open": 240, "chmod": 90, "fchmod": 91, "fchmodat": 268,
        "fchmodat2": 452,
    },
    "aarch64": {
        "clone": 220, "execve": 221, "clone3": 435, "execveat": 281, "kill": 129, "tkill": 130, "tgkill": 131,
        "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "pidfd_send_signal": 424, "pidfd_open": 434,
        "pidfd_getfd": 438, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "process_madvise": 440,
        "process_mrelease": 448, "kcmp": 272, "prlimit64": 261, "setpriority": 140, "sched_setparam": 118,
        "sched_setscheduler": 119, "sched_setaffinity": 122, "sched_setattr": 274, "ioprio_set": 30,
        "migrate_pages": 238, "move_pages": 239, "setns": 268, "unshare": 97, "mount": 40, "socket": 198,
        "socketpair": 199, "msgget": 186, "semget": 190, "mq_open": 180, "fchmod": 52, "fchmodat": 53,
        "fchmodat2": 452,
    },
}  # fmt: skip
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of linux/audit.h: a program of another architecture would use other call numbers."""
_FIRST_OF_X32 = 0x40000000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_AT_NUMBER, _AT_ARCHITECTURE = 0, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOSYS


def filter_program(machine: str | None = None, *, processes: bool = True) -> bytes:
    """Return the filter for this machine's processor, as `struct sock_filter`s; empty for an unknown one.

    Args:
        machine: The processor, as `platform.machine` names it; by default this machine's.
        processes: Whether the filtered process may start and reach other processes.
    """
    machine = machine or platform.machine()
    if machine not in _NUMBERS:
        return b""
    numbers = sorted({**_NUMBERS[machine], **({} if processes else _OF_PROCESSES[machine])}.values())
    last = len(numbers)  # BPF jumps are relative: each skips the rest of the list to the last instruction, which denies
    program = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_IF_EQUAL, 0, last + 3, _ARCHITECTURE[machine]),
        (_LOAD, 0, 0, _AT_NUMBER),
        (_IF_AT_LEAST, last + 1, 0, _FIRST_OF_X32),
        *((_IF_EQUAL, last - index, 0, number) for index, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in program)
