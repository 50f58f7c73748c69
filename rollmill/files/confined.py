"""Read files whose paths come from untrusted data: only regular files in given folders, up to a size limit."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

_MAX_NAME_CHARS = 200
_READ_AT_ONCE = 1 << 20


class ConfinedFileError(Exception):
    """A file that may not or cannot be read.

    `reason` is one of a few fixed texts, to count by. Neither text contains anything from the file.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def confined_path(name: str, folders: Sequence[Path]) -> Path:
    """Return the real path of a file that is named in the data, with symbolic links resolved.

    Raises `ConfinedFileError`, with the same message whether or not a file outside the folders exists: a message that
    differs would tell the author of the data which files there are.

    Args:
        name: A path or `file://` URL; a relative path is relative to the first of `folders` in which it exists.
        folders: The file must be in one of these. If there are none, no file may be read.
    """
    local = _local_path(name)
    try:
        roots = [os.path.realpath(folder) for folder in folders]
        # Joining an absolute name returns that name.
        paths = [os.path.realpath(os.path.join(root, local)) for root in roots]  # noqa: PTH118
        inside = [path for path in paths if any(os.path.commonpath([root, path]) == root for root in roots)]
        resolved = next((path for path in inside if os.path.lexists(path)), None)
        # No candidate exists inside. If none leads outside, the first is returned, and opening it reports that there is
        # no such file. Otherwise the error is "outside", without a look at what is there.
        if resolved is None and inside and len(inside) == len(paths):
            resolved = inside[0]
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in the name
        raise ConfinedFileError("file cannot be read", _reason(name, error)) from None
    if resolved is None:
        raise ConfinedFileError("file is outside the allowed folders", name[:_MAX_NAME_CHARS])
    return Path(resolved)


def read_confined(name: str, folders: Sequence[Path], *, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; see `confined_path`.

    Pipes, sockets, devices and folders are refused without blocking. At most `limit` + 1 bytes are read, whatever size
    the file reports. Raises `ConfinedFileError`.
    """
    path = confined_path(name, folders)
    try:
        # Before opening, since opening a device may have effects; again below, since the file may have been replaced.
        _check_regular(path.lstat(), name)
        # The path is resolved: a link or pipe that replaces the file meanwhile causes an error, and never blocks.
        # A parent folder that becomes a link meanwhile is followed: untrusted data cannot change the file system.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(file)
            _check_regular(status, name)
            if status.st_size > limit:
                raise ConfinedFileError("file is too large", f"{name[:_MAX_NAME_CHARS]} (more than {limit:,} bytes)")
            content = _read(file, limit + 1)
        finally:
            os.close(file)
    except OSError as error:
        raise ConfinedFileError("file cannot be read", _reason(name, error)) from None
    if len(content) > limit:
        raise ConfinedFileError("file is too large", f"{name[:_MAX_NAME_CHARS]} (more than {limit:,} bytes)")
    return content


def _local_path(name: str) -> str:
    if not name[:7].lower().startswith("file://"):
        return name
    host, _, path = name[7:].partition("/")
    if host.lower() not in ("", "localhost"):
        raise ConfinedFileError("file URL names another machine", name[:_MAX_NAME_CHARS])
    return unquote(f"/{path}")  # `?` and `#` are part of the name: file URLs have neither query nor fragment here


def _check_regular(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfinedFileError("not a regular file", name[:_MAX_NAME_CHARS])


def _read(file: int, most: int) -> bytes:
    pieces, remaining = [], most
    while remaining and (piece := os.read(file, min(remaining, _READ_AT_ONCE))):
        pieces.append(piece)
        remaining -= len(piece)
    return b"".join(pieces)


def _reason(name: str, error: Exception) -> str:
    return f"{name[:_MAX_NAME_CHARS]}: {getattr(error, 'strerror', None) or 'not the name of a file'}"
