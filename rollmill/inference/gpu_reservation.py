"""Keeps two jobs on one machine from using the same GPU: each process locks a file for each GPU that it uses.

A lock ends with the process that holds it, however that ends. Jobs in containers with a `/tmp` of their own do not see
each other's locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from rollmill.errors import InputError
from rollmill.inference.devices import SHARE
from rollmill.inference.placement import in_use_message
from rollmill.inference.visible_gpus import Gpu, VisibleGpus, find_gpus

FOLDER = Path("/tmp/rollmill-gpus")  # noqa: S108 - one for all users, whatever their TMPDIR is
_PATIENCE_S = 2.0
"""Seconds for processes of a job that has just ended."""
_POLL_S = 0.1


def free_gpus(environment: Mapping[str, str] | None = None, *, shared: bool = False) -> VisibleGpus:
    """Return the GPUs of `find_gpus`, without those that other jobs have reserved: these are in its `in_use`.

    With `ROLLMILL_SHARE_GPUS=1` reservations do not count. `shared` is that of `reserve_gpus`.
    """
    gpus = find_gpus(environment)
    if _are_shared(environment) or not gpus.gpus:
        return gpus
    deadline = time.monotonic() + _PATIENCE_S
    while (taken := [gpu for gpu in gpus.gpus if _is_taken(gpu, shared=shared)]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return replace(gpus, gpus=tuple(gpu for gpu in gpus.gpus if gpu not in taken), in_use=tuple(taken))


@contextmanager
def reserve_gpus(
    gpus: Sequence[Gpu], *, shared: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Reserve GPUs for the time of the block. Raises `InputError` where another job has one of them.

    Args:
        gpus: The GPUs.
        shared: Whether other jobs may use them, too, that also say so: servers with a given share of memory.
        environment: Environment, which may have `ROLLMILL_SHARE_GPUS`; None for this process's.
    """
    with ExitStack() as locks:
        for gpu in {} if _are_shared(environment) else dict.fromkeys(gpus):
            file = _open(gpu)
            if file is None:
                continue
            locks.callback(_release, file)
            deadline = time.monotonic() + _PATIENCE_S
            while not _lock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise InputError(in_use_message([gpu]))
                time.sleep(_POLL_S)
        yield


def _are_shared(environment: Mapping[str, str] | None) -> bool:
    return (os.environ if environment is None else environment).get(SHARE) == "1"


def _is_taken(gpu: Gpu, *, shared: bool) -> bool:
    """Return whether another process holds the lock of a GPU in a way that excludes one with `shared`."""
    file = _open(gpu)
    if file is None:
        return False
    try:
        # A shared lock is tried first: two processes that look at the same time must not find each other.
        if not _lock(file, fcntl.LOCK_SH):
            return True
        return not shared and not _lock(file, fcntl.LOCK_EX)
    finally:
        os.close(file)


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        # Other errors are those of a file system without locks, where nothing can be reserved.
        return error.errno not in (errno.EWOULDBLOCK, errno.EINTR)
    return True


def _release(file: int) -> None:
    """Unlock and close a file. Only closed, it would stay locked by processes that were forked in the meantime."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _open(gpu: Gpu) -> int | None:
    """Open the file of a GPU, which is never removed; None where that is not possible, so that nothing is reserved."""
    path = FOLDER / re.sub(r"[^\w.-]", "_", gpu.uuid or f"gpu{gpu.name}")
    try:
        if not FOLDER.is_dir():
            FOLDER.mkdir(exist_ok=True)
            FOLDER.chmod(0o1777)
        # Not created where it exists: systems with `fs.protected_regular` refuse that for a file of another user.
        if path.exists():
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CREAT, 0o644)
        os.fchmod(file, 0o644)  # whatever the umask: other users lock it, too
        return file
    except OSError:
        return None
