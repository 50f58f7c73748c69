"""What rollmill raises on purpose. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import errno
import traceback
from os import PathLike, fsdecode


class RollmillError(Exception):
    """Base of the errors whose message is meant for the user as it stands, on one line.

    `details` is what else helps, such as the last lines of a log: printed beneath, never needed to understand.
    """

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.details = details


class InputError(RollmillError):
    """The user gave something that cannot be used; the message says what, where, and what to do."""


class ServingError(RollmillError):
    """A model server did not start, answers for the wrong model, or is gone for good."""


class RunStoppedError(RollmillError):
    """A run stopped before its end; what is journaled stays, and the same command continues it."""


def describe(error: BaseException, limit: int = 500) -> str:
    """Return an error's type and message on one line, for any error, even one whose own `str` fails."""
    line = " ".join("".join(traceback.format_exception_only(error)).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


_AGAIN = "then run the same command again to continue"
_IN_THE_WAY = {
    errno.EISDIR: "a folder is where a file belongs: move it away, or write elsewhere",
    errno.ENOTDIR: "a file is where a folder belongs: move it away, or write elsewhere",
    errno.EEXIST: "something else is where a folder belongs: move it away, or write elsewhere",
    errno.ENOTEMPTY: "a folder is in the way: move it away, or write elsewhere",
    errno.ELOOP: "a symbolic link is where a file belongs: remove it, or write elsewhere",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What the user named cannot be what it has to be."""
_OUTSIDE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "make it writable, or write elsewhere",
    errno.EACCES: "allow this user to read and write there, or write elsewhere",
    errno.EPERM: "allow this user to read and write there, or write elsewhere",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or write to another file system",
    errno.ENOLCK: "write to a file system that has locks",
    errno.ENOSYS: "write to a file system that has locks",
    errno.EOPNOTSUPP: "write to a file system that has locks",
    errno.ENOENT: "put it back",
    errno.EIO: "see the system's log for the disk",
    errno.ESTALE: "mount it again",
    errno.ENXIO: "see what stands there",
    errno.ENODEV: "see what stands there",
    errno.EBUSY: "see what uses it",
    errno.ETXTBSY: "see what uses it",
}
"""What may pass, or be mended, while the same command stays the right one."""


def file_error(error: OSError, path: str | PathLike[str] | None = None) -> RollmillError | None:
    """Return what the user should read of a failed use of a file; None where `error` is of another kind.

    `path` is what was used, where the error itself does not say. A missing file counts only where it is named: without
    a name it is a bug.
    """
    names = error.filename2, error.filename, path  # of a rename first the place that it was for
    named = next((name for name in names if isinstance(name, str | bytes | PathLike)), None)
    where = "" if named is None else f": {_short(fsdecode(named))}"
    message = f"{error.strerror}{where}"
    if error.errno in _IN_THE_WAY:
        return InputError(f"{message}; {_IN_THE_WAY[error.errno]}")
    if error.errno in _OUTSIDE and (where or error.errno != errno.ENOENT):
        return RunStoppedError(f"{message}; {_OUTSIDE[error.errno]}, {_AGAIN}")
    return None


def _short(path: str) -> str:
    return path if len(path) <= 240 else f"{path[:120]}...{path[-100:]}"
