"""Builds the seccomp filter of a bubblewrap sandbox.

It refuses system calls that

- allocate memory which counts for no process: memfd, huge pages, System V objects, message queues, rings, memory
  policies, buffers of pipes and sockets that are larger than usual, pages moved into pipes;
- hide open files, or memory: a thread's own table of files, a child that is not its parent's;
- reach the host's keyrings, or large parts of the kernel that no program under test needs.

As in Docker's profile, most return ENOSYS, which programs take for an older kernel: for `clone3`, whose flags a filter
cannot read, libraries then use `clone`. ptrace is allowed, since agents use gdb and strace: the namespace's first
process has the limits of all others (`limiting_command`), so nothing is gained by tracing it. A compute-only process is
also denied the calls that start, signal, change or inspect processes, open sockets or message queues, or make files
writable.
"""

from __future__ import annotations

import errno
import platform

from rollmill.sandboxes.bpf import CallRule, Condition, build_filter

_NUMBERS = {
    "x86_64": {
        "shmget": 29, "semget": 64, "msgget": 68, "quotactl": 179, "io_setup": 206, "lookup_dcookie": 212, "mbind": 237,
        "set_mempolicy": 238, "mq_open": 240, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256,
        "unshare": 272, "tee": 276, "vmsplice": 278, "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308, "kcmp": 312, "memfd_create": 319, "bpf": 321,
        "seccomp": 317, "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "open_tree": 428,
        "move_mount": 429, "fsopen": 430, "clone3": 435, "process_madvise": 440, "mount_setattr": 442,
        "quotactl_fd": 443, "landlock_create_ruleset": 444, "memfd_secret": 447, "process_mrelease": 448,
        "set_mempolicy_home_node": 450,
    },
    "aarch64": {
        "io_setup": 0, "lookup_dcookie": 18, "quotactl": 60, "vmsplice": 75, "tee": 77, "unshare": 97, "mq_open": 180,
        "msgget": 186, "semget": 190, "shmget": 194, "add_key": 217, "request_key": 218, "keyctl": 219, "mbind": 235,
        "set_mempolicy": 237, "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241, "fanotify_init": 262,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268, "kcmp": 272, "memfd_create": 279, "bpf": 280,
        "seccomp": 277, "userfaultfd": 282, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "open_tree": 428,
        "move_mount": 429, "fsopen": 430, "clone3": 435, "process_madvise": 440, "mount_setattr": 442,
        "quotactl_fd": 443, "landlock_create_ruleset": 444, "memfd_secret": 447, "process_mrelease": 448,
        "set_mempolicy_home_node": 450,
    },
}  # fmt: skip
"""Calls that are refused; from the kernel's syscall_64.tbl and asm-generic/unistd.h."""
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
_OF_RULES = {
    "x86_64": {
        "mmap": 9, "madvise": 28, "sendfile": 40, "socket": 41, "socketpair": 53, "setsockopt": 54, "clone": 56,
        "fcntl": 72, "prctl": 157, "splice": 275, "fallocate": 285, "prlimit64": 302,
    },
    "aarch64": {
        "fcntl": 25, "fallocate": 47, "sendfile": 71, "splice": 76, "prctl": 167, "socket": 198, "socketpair": 199,
        "setsockopt": 208, "clone": 220, "mmap": 222, "madvise": 233, "prlimit64": 261,
    },
}  # fmt: skip
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of linux/audit.h: a program of another architecture would use other call numbers."""

_CLONE_FILES, _CLONE_PARENT, _CLONE_THREAD = 0x400, 0x8000, 0x10000
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_PR_SET_SECCOMP, _PR_FUTEX_HASH = 22, 78
_MAP_HUGETLB = 0x40000
_F_SETPIPE_SZ = 1031
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_DEFAULT, _TCP, _UDP, _NETLINK_ROUTE = 0, 6, 17, 0
_SOL_SOCKET = 1
_BUFFER_SIZES = [7, 8, 32, 33]
"""SO_SNDBUF, SO_RCVBUF and their FORCE variants of asm-generic/socket.h."""
_SOCKET_MEMORY = [26, 50, 51, 52, 60]
"""SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF and _EBPF, SO_ZEROCOPY."""

RULES = [
    # A thread with a table of open files that is not its process's could hold files that /proc/PID/fd does not list.
    CallRule("clone", errno.ENOSYS, [Condition(0, [_CLONE_THREAD], mask=_CLONE_THREAD | _CLONE_FILES)]),
    # A vfork's child that is not its parent's could not be distinguished from one that has memory of its own.
    CallRule("clone", errno.EINVAL, [Condition(0, [_CLONE_PARENT], mask=_CLONE_PARENT | _CLONE_THREAD)]),
    # A huge page stays whole where all but a small part of it is unmapped.
    CallRule("madvise", errno.EINVAL, [Condition(2, [_MADV_HUGEPAGE, _MADV_COLLAPSE])]),
    CallRule("prctl", errno.EINVAL, [Condition(0, [_PR_FUTEX_HASH])]),
    CallRule("mmap", errno.ENOMEM, [Condition(3, [_MAP_HUGETLB], mask=_MAP_HUGETLB)]),
    CallRule("fcntl", errno.EPERM, [Condition(1, [_F_SETPIPE_SZ])]),
    # Both keep pages of files that are truncated later; programs then copy.
    CallRule("splice", errno.EINVAL),
    CallRule("sendfile", errno.EINVAL),
    # It would take space faster than anyone can count; the C library then writes zeros.
    CallRule("fallocate", errno.EOPNOTSUPP),
    CallRule("prlimit64", errno.EPERM, [Condition(0, [0], equal=False)]),
    # Programs set sizes of buffers for speed alone, and many treat a failure as fatal: it succeeds and does nothing.
    CallRule("setsockopt", 0, [Condition(1, [_SOL_SOCKET]), Condition(2, _BUFFER_SIZES)]),
    CallRule("setsockopt", errno.ENOPROTOOPT, [Condition(1, [_SOL_SOCKET]), Condition(2, _SOCKET_MEMORY)]),
    CallRule("socketpair", errno.EAFNOSUPPORT, [Condition(0, [_UNIX], equal=False)]),
    CallRule("socket", errno.EAFNOSUPPORT, [Condition(0, [_UNIX, _INET, _INET6, _NETLINK], equal=False)]),
    CallRule(
        "socket",
        errno.EPROTONOSUPPORT,
        [Condition(0, [_INET, _INET6]), Condition(2, [_DEFAULT, _TCP, _UDP], equal=False)],
    ),
    CallRule("socket", errno.EPROTONOSUPPORT, [Condition(0, [_NETLINK]), Condition(2, [_NETLINK_ROUTE], equal=False)]),
]

_NO_FILTERS = CallRule("prctl", errno.EINVAL, [Condition(0, [_PR_SET_SECCOMP])])


def filter_program(machine: str | None = None, *, processes: bool = True, filters: bool = False) -> bytes:
    """Return the filter for this machine's processor, as `struct sock_filter`s; empty for an unknown one.

    Args:
        machine: The processor, as `platform.machine` names it; by default this machine's.
        processes: Whether the filtered process may start and reach other processes.
        filters: Whether the filtered process may add filters of its own by prctl, which are memory of the kernel.
    """
    machine = machine or platform.machine()
    if machine not in _NUMBERS:
        return b""
    refused = {**_NUMBERS[machine], **({} if processes else _OF_PROCESSES[machine])}
    numbers = {**_OF_RULES[machine], **refused}
    rules = RULES if filters else [*RULES, _NO_FILTERS]
    return build_filter(_ARCHITECTURE[machine], numbers, list(refused), rules)
