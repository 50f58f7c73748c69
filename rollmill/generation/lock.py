"""One process on one run directory, and on one journal."""

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
"""What a file system says that cannot lock folders: on NFS a lock needs a file that is open for writing."""


@contextmanager
def lock_directory(directory: Path, *, flag: str = "--model_name") -> Iterator[None]:
    """Hold a run directory; the lock falls with the process, however that ends. `flag` names another directory.

    The folder itself is locked, whatever its name and whatever becomes of the files in it, and `.lock`, which is all
    that older versions lock, and which says who holds it. Raises `InputError` with the holder's process number and
    host when another process holds it, or where something else stands there, and `RunStoppedError` where the file
    system refuses.
    """
    files: list[int] = []
    try:
        _take(directory, files, flag)
        yield
    finally:
        for file in files:
            os.close(file)


def _take(directory: Path, files: list[int], flag: str) -> None:
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        files.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
        try:
            lock_file(files[-1], directory, path, flag)
        except OSError as error:
            if error.errno not in _NO_FOLDER_LOCKS:
                raise
        require_regular(path)
        files.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644))
        lock_file(files[-1], directory, path, flag)
        os.ftruncate(files[-1], 0)
        os.pwrite(files[-1], orjson.dumps({"pid": os.getpid(), "host": host(), "since": now()}), 0)
    except OSError as error:
        raise file_error(error, path) or error from error


def lock_file(file: int, what: Path, note: Path, flag: str) -> None:
    """Lock an open file or folder for this process, until it is closed.

    Raises `InputError` where another process has locked it, and `OSError` where the file system has no locks.

    Args:
        file: its descriptor.
        what: its name in the message.
        note: the `.lock` where the holder may have said who it is.
        flag: flags of the command line that name another place.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{what} is in use by {_holder(file, note)}: wait for it, or give another {flag}") from None


def _holder(file: int, note: Path) -> str:
    """Say which process has locked an open file: as the kernel knows it, else as it has noted itself."""
    pid = _locking_process(file)
    try:
        holder = orjson.loads(note.read_bytes())
        if pid in (None, holder["pid"]):
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, orjson.JSONDecodeError, LookupError, TypeError):
        pass
    return f"process {pid} on {host()}" if pid else "another process"


def _locking_process(file: int) -> int | None:
    """Return the number of the process that has locked an open file, where it is one of this machine's.

    A line of Linux's list: `1: FLOCK  ADVISORY  WRITE 4711 fe:00:2147715 0 EOF`; devices in hexadecimal.
    """
    state = os.fstat(file)
    device_and_inode = f"{os.major(state.st_dev):02x}:{os.minor(state.st_dev):02x}:{state.st_ino}"
    try:
        rows = [line.split() for line in _LOCKS.read_text().splitlines()]
    except OSError:
        return None
    return next((int(row[4]) for row in rows if row[1:2] == ["FLOCK"] and row[5:6] == [device_and_inode]), None)
