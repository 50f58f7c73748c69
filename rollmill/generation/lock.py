"""Locks that admit one process at a time to a run directory; `lock_file` is also used for journals."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from rollmill.errors import InputError, file_error
from rollmill.files.regular import require_regular
from rollmill.generation.manifest import host, now

LOCK = ".lock"
_LOCKS = Path("/proc/locks")
_NO_FOLDER_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of file systems that cannot lock folders: on NFS a lock needs a file that is open for writing."""


@contextmanager
def lock_directory(directory: Path, *, flag: str = "--model_name") -> Iterator[None]:
    """Lock a run directory; the kernel releases the lock when the process ends, however it ends.

    Locks the folder, so that renaming it or deleting files in it does not release the lock, and the file `.lock`, which
    records the process with the lock. Older versions lock only `.lock`. `flag` is the command line flag that gives
    another directory, for messages: often `--model_name`, since a run's directory is named after it.

    Raises `InputError` with process number and host when another process has the lock, or where `.lock` is not a
    regular file, and `RunStoppedError` where the file system refuses.
    """
    descriptors: list[int] = []
    try:
        _lock(directory, descriptors, flag)
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _lock(directory: Path, descriptors: list[int], flag: str) -> None:
    """Lock the folder and its `.lock`; the descriptors are added to the list at once, to be closed on errors, too."""
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptors.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
        try:
            lock_file(descriptors[-1], directory, path, flag)
        except OSError as error:
            if error.errno not in _NO_FOLDER_LOCKS:
                raise
        # Opening a FIFO would block, a device act; O_NOFOLLOW refuses a link that was put there since the check.
        require_regular(path)
        descriptors.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644))
        lock_file(descriptors[-1], directory, path, flag)
        os.ftruncate(descriptors[-1], 0)
        os.pwrite(descriptors[-1], orjson.dumps({"pid": os.getpid(), "host": host(), "since": now()}), 0)
    except OSError as error:
        # None for errors that are not of the file system's state: a bug, to be seen with its traceback.
        raise file_error(error, path) or error from error


def lock_file(descriptor: int, path: Path, lock_record: Path, flag: str) -> None:
    """Lock an open file or folder for this process, until it is closed.

    Raises `InputError` where another process has locked it, and `OSError` where the file system has no locks.

    Args:
        descriptor: Descriptor of the open file or folder.
        path: Its path, for the message.
        lock_record: The `.lock` file in which the process with the lock may have recorded itself.
        flag: Command line flags that choose another path, for the message.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{path} is in use by {_holder(descriptor, lock_record)}: wait for it, or give another {flag}"
        ) from None


def _holder(descriptor: int, lock_record: Path) -> str:
    """Describe the process that has locked an open file: by the kernel's list, otherwise by its own record."""
    pid = _locking_process(descriptor)
    try:
        holder = orjson.loads(lock_record.read_bytes())
        # Where the kernel names another process, the record is stale: that process has not written its own yet.
        if pid in (None, holder["pid"]):
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, orjson.JSONDecodeError, LookupError, TypeError):
        pass
    return f"process {pid} on {host()}" if pid else "another process"


def _locking_process(descriptor: int) -> int | None:
    """Return the number of the process on this machine that has locked an open file; None where it is not known.

    It is not known of a process on another machine, or without /proc/locks. That file of Linux has lines such as
    `1: FLOCK  ADVISORY  WRITE 4711 fe:00:2147715 0 EOF`, with device numbers in hexadecimal.
    """
    state = os.fstat(descriptor)
    device_and_inode = f"{os.major(state.st_dev):02x}:{os.minor(state.st_dev):02x}:{state.st_ino}"
    try:
        rows = [line.split() for line in _LOCKS.read_text().splitlines()]
    except OSError:
        return None
    # Slices, since a row may be shorter; a process that waits for a lock has `->` in place of FLOCK.
    return next((int(row[4]) for row in rows if row[1:2] == ["FLOCK"] and row[5:6] == [device_and_inode]), None)
