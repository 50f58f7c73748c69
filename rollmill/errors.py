"""The errors that rollmill raises on purpose. Any other exception is a bug and keeps its traceback."""

from __future__ import annotations

import errno
import traceback
from os import PathLike, fsdecode


class RollmillError(Exception):
    """Base of the errors whose message, one line, is shown to the user unchanged.

    `details` is printed below it: additional information such as the last lines of a log.
    """

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.details = details


class InputError(RollmillError):
    """Input of the user that cannot be used; the message names the value, its place, and the remedy."""


class ServingError(RollmillError):
    """A model server that does not start, serves another model, or has failed for good."""


class RunStoppedError(RollmillError):
    """A run that stopped before its end; journaled rollouts are kept, and the same command continues it."""


def describe(error: BaseException, limit: int = 500) -> str:
    """Return an error's type and message on one line of at most `limit` characters, even if its `str` fails."""
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
"""Errors of paths that the user must choose differently, or clear."""
_OUTSIDE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "make it writable, or write elsewhere",
    errno.EACCES: "allow this user to read and write there, or write elsewhere",
    errno.EPERM: "allow this user to read and write there, or write elsewhere",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or write to another file system",
    errno.ENOLCK: "write to a file system that supports locks",
    errno.ENOSYS: "write to a file system that supports locks",
    errno.EOPNOTSUPP: "write to a file system that supports locks",
    errno.ENOENT: "put it back",
    errno.EIO: "see the system's log for the disk",
    errno.ESTALE: "mount it again",
    errno.ENXIO: "check what is at this path",
    errno.ENODEV: "check what is at this path",
    errno.EBUSY: "check what uses it",
    errno.ETXTBSY: "check what uses it",
}
"""Errors that are temporary or can be fixed, after which the same command works."""


def file_error(error: OSError, path: str | PathLike[str] | None = None) -> RollmillError | None:
    """Return the error to show to the user for a failed file operation; None for other kinds of `OSError`.

    `path` is the file where the error does not name it. A missing file counts only with a name: without one it is a
    bug.
    """
    names = error.filename2, error.filename, path  # of a rename, the target first
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
