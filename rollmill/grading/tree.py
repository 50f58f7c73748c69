"""A work tree's content in memory, read from an untrusted archive without touching a file system."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import NamedTuple

REGULAR, EXECUTABLE, LINK = "100644", "100755", "120000"
"""Git's file modes."""


class BadTreeError(Exception):
    """An archive that cannot be used as a work tree; the message says why."""


class TreeEntry(NamedTuple):
    """A file or a symbolic link."""

    mode: str
    content: bytes
    """Of a symbolic link: its target."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of mode and content."""
        return hashlib.sha256(self.mode.encode() + self.content).digest()


Tree = dict[bytes, TreeEntry]
"""Files by path: relative to the work tree's root, `/` between names, as the file system's bytes."""
Digests = dict[bytes, bytes]
"""Files' digests by path."""

_LONGEST_PATH = 4000


def read_tar(archive: bytes, *, most: int) -> Tree:
    """Read the files of a tar, at most `most` bytes of content.

    Leaves out `.git` folders, empty folders and devices. Raises `BadTreeError` for an archive that is damaged, too
    large, or has paths outside of its root.
    """
    tree: Tree = {}
    size = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", errors="surrogateescape") as tar:
            for member in tar:
                if member.isdir() or not (names := _names(member.name)):
                    continue
                file = _read_member(tar, member, most - size, tree)
                if file is not None:
                    size += len(file.content)
                    tree[b"/".join(names)] = file
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BadTreeError(f"its archive cannot be read: {error}") from error
    # Written out, a path beneath a link would leave the work tree; one beneath a file cannot be.
    for path in tree:
        names = path.split(b"/")
        if any(b"/".join(names[:end]) in tree for end in range(1, len(names))):
            raise BadTreeError(f"{show(path)} lies beneath a file")
    return tree


def write_tar(tree: Tree) -> bytes:
    """Write these files to a tar."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for path, file in tree.items():
            member = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
            member.mode = 0o755 if file.mode == EXECUTABLE else 0o644
            if file.mode == LINK:
                member.type = tarfile.SYMTYPE
                member.linkname = file.content.decode("utf-8", "surrogateescape")
                tar.addfile(member)
            else:
                member.size = len(file.content)
                tar.addfile(member, io.BytesIO(file.content))
    return archive.getvalue()


def file_digests(tree: Tree) -> Digests:
    """Return the digests of all files, to detect changes later."""
    return {path: file.digest for path, file in tree.items()}


def show(path: bytes) -> str:
    """Decode a path for display; bytes that are not UTF-8 become backslash escapes."""
    return path.decode("utf-8", "backslashreplace")


def _names(name: str) -> list[bytes]:
    """Split a member's path; empty for one in `.git`. Raises `BadTreeError` for a path outside of the root."""
    path = name.encode("utf-8", "surrogateescape")
    names = [part for part in path.split(b"/") if part not in {b"", b"."}]
    if path.startswith(b"/") or b".." in names or b"\0" in path:
        raise BadTreeError(f"{show(path)} lies outside")
    if len(path) > _LONGEST_PATH:
        raise BadTreeError(f"it holds a path of {len(path)} bytes")
    return [] if any(part.lower() == b".git" for part in names) else names


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int, tree: Tree) -> TreeEntry | None:
    """Read one member; None for a device. Raises `BadTreeError`.

    Args:
        tar: Opened for reading.
        member: To read.
        most: Maximum bytes of its content.
        tree: The members before it, which hard links may name.
    """
    if member.issym():
        return TreeEntry(LINK, member.linkname.encode("utf-8", "surrogateescape"))
    if member.islnk():
        same = tree.get(b"/".join(_names(member.linkname)))
        if same is None or len(same.content) > most:
            raise BadTreeError(f"{member.name!r} is a hard link to what is not there, or too much")
        return same
    if not member.isreg():
        return None
    if member.size > most:
        raise BadTreeError("it holds more than may be looked at")
    content = tar.extractfile(member)
    data = content.read() if content else b""
    if len(data) != member.size:
        raise BadTreeError(f"{member.name!r} is cut off")
    return TreeEntry(EXECUTABLE if member.mode & 0o100 else REGULAR, data)
