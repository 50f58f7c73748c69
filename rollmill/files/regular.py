"""Check that a path of our own files is not occupied by something else."""

from __future__ import annotations

import stat
from pathlib import Path

from rollmill.errors import InputError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_regular(path: Path) -> None:
    """Raise `InputError` unless there is a regular file, or nothing, at `path`.

    Opening a pipe would block forever, and opening a dangling link for writing would create a file somewhere else.
    Raises `OSError` as the file system does.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to {path.readlink()}, which does not exist: mount or restore that, or remove "
                "the link"
            ) from None
        return
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise InputError(f"{path} is {kind}, not a file: move it away, or write elsewhere")
