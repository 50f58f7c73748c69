"""A work tree's content in memory, read from an untrusted archive without touching a file system."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Container, Iterable
from typing import NamedTuple

from rollmill.grading.tar_reader import HARD_LINK, LINK_TYPE, REGULAR_TYPES, DamagedTarError, Member, read_members
from rollmill.sandboxes.tree_limits import TreeLimits

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
        """Mode, and SHA-256 of the content."""
        return content_digest(self.mode, hashlib.sha256(self.content).digest())


def content_digest(mode: str, sha256: bytes) -> bytes:
    """Return the digest of a file with that mode, whose content has that SHA-256."""
    return mode.encode() + sha256


Tree = dict[bytes, TreeEntry]
"""Files by path: relative to the work tree's root, `/` between names, as the file system's bytes."""
Digests = dict[bytes, bytes]
"""Files' digests by path."""


def read_tar(archive: bytes, *, most: int, limits: TreeLimits | None = None) -> Tree:
    """Read the files of a tar, at most `most` bytes of content.

    Leaves out `.git` folders, empty folders and devices. Raises `BadTreeError` for an archive that is damaged, beyond
    its limits, or has paths outside of its root.

    Args:
        archive: A tar, not compressed.
        most: Maximum bytes of content; a hard link counts as the file that it names.
        limits: Of entries, names and single files; None for the defaults.
    """
    limits = limits or TreeLimits()
    tree: Tree = {}
    entries = size = name_bytes = 0
    try:
        for member in read_members(archive, limits.path_bytes):
            entries, name_bytes = entries + 1, name_bytes + len(member.name) + len(member.target)
            if entries > limits.entries:
                raise BadTreeError(f"it holds more than {limits.entries} files and folders")
            if name_bytes > limits.name_bytes:
                raise BadTreeError(f"its names take more than {limits.name_bytes} bytes")
            names = split_path(member.name, limits)
            file = _read_member(member, min(most - size, limits.file_bytes), tree, limits) if names else None
            if file is not None:
                size += len(file.content)
                tree[b"/".join(names)] = file
    except DamagedTarError as error:
        raise BadTreeError(f"its archive cannot be read: {error}") from error
    require_folders(tree, tree)
    return tree


def require_folders(paths: Iterable[bytes], files: Container[bytes]) -> None:
    """Raise `BadTreeError` if a path lies beneath one of the files.

    Written out, a path beneath a link would leave the work tree; one beneath a file cannot be.
    """
    folders: set[bytes] = set()
    for path in paths:
        folder = path.rpartition(b"/")[0]
        while folder and folder not in folders:  # each folder is looked at once, however many files are in it
            if folder in files:
                raise BadTreeError(f"{show(path)} lies beneath a file")
            folders.add(folder)
            folder = folder.rpartition(b"/")[0]


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


def split_path(path: bytes, limits: TreeLimits) -> list[bytes]:
    """Split a path into names; empty for one in `.git`. Raises `BadTreeError` for one that is outside or too long."""
    if len(path) > limits.path_bytes:
        raise BadTreeError(f"it holds a path of {len(path)} bytes")
    names = [part for part in path.split(b"/") if part not in {b"", b"."}]
    if path.startswith(b"/") or b".." in names or b"\0" in path:
        raise BadTreeError(f"{show(path)} lies outside")
    if len(names) > limits.depth:
        raise BadTreeError(f"it is more than {limits.depth} folders deep")
    return [] if any(part.lower() == b".git" for part in names) else names


def _read_member(member: Member, most: int, tree: Tree, limits: TreeLimits) -> TreeEntry | None:
    """Convert one member; None for a device or a folder. Raises `BadTreeError`.

    Args:
        member: To convert.
        most: Maximum bytes of its content.
        tree: The members before it, which hard links may name.
        limits: Of the path that a hard link names.
    """
    if member.type == LINK_TYPE:
        return TreeEntry(LINK, member.target)
    if member.type == HARD_LINK:
        same = tree.get(b"/".join(split_path(member.target, limits)))
        if same is None or len(same.content) > most:
            raise BadTreeError(f"{show(member.name)} is a hard link to what is not there, or too much")
        return same
    if member.type not in REGULAR_TYPES:
        return None
    if len(member.content) > most:
        raise BadTreeError("it holds more than may be looked at")
    return TreeEntry(EXECUTABLE if member.mode & 0o100 else REGULAR, bytes(member.content))
