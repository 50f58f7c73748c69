"""Reads what an agent changed in its sandbox, without running git there, and separates what is allowed.

First names, sizes and modes of all files are listed. `.gitignore` files of the start commit and the problem's allowed
paths then decide, on this side, which files matter: only digests are read of those that may have changed, and
content of those that are graded. What is not graded is noted, and never applied.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from rollmill.grading import path_policy
from rollmill.grading.patch import Change, Patch, PatchBase
from rollmill.grading.tree import (
    EXECUTABLE,
    LINK,
    REGULAR,
    BadTreeError,
    TreeEntry,
    content_digest,
    read_tar,
    require_folders,
    show,
)
from rollmill.sandboxes.sandbox import Sandbox, SandboxError
from rollmill.sandboxes.tree_limits import TreeLimits
from rollmill.sandboxes.tree_reader import ListedFile, TreeReader

_FILE, _LINK = "f", "l"
_NO_PATH = re.compile(rb"(?:^|/)(?:\.{0,2}|\.git)(?:/|\Z)", re.IGNORECASE)
"""Matches a path with a name that no listed file has: empty, `.`, `..` or `.git`."""


class NoRepositoryError(BadTreeError):
    """The work tree has no `.git`."""


class IgnoredFile(NamedTuple):
    """A changed file that is not graded."""

    path: str
    reason: str


class AgentChange(NamedTuple):
    """An agent's change."""

    patch: Patch
    """Of the allowed files."""
    ignored: list[IgnoredFile]
    """The other changed files, by path."""


def read_change(
    sandbox: Sandbox, folder: str, start: PatchBase, allowed: Sequence[str], limits: TreeLimits
) -> AgentChange:
    """Return what an agent changed since the start commit.

    Raises `BadTreeError` if the agent made the tree unreadable or too large, `SandboxError` if the sandbox does not
    answer.

    Args:
        sandbox: The agent's.
        folder: The repository's root in it.
        start: The work tree before the change.
        allowed: Patterns of files that may change.
        limits: Of the change.
    """
    if sandbox.execute("[ -e .git ]", cwd=folder, timeout_s=30).returncode:
        raise NoRepositoryError("it is no git repository any more")
    try:
        with TreeReader(sandbox, folder, limits) as reader:
            return _read_change(reader, start, allowed, limits)
    except SandboxError as error:
        if error.type != "contents":
            raise
        raise BadTreeError(str(error)) from error


def _read_change(reader: TreeReader, start: PatchBase, allowed: Sequence[str], limits: TreeLimits) -> AgentChange:
    """Return the change.

    Args:
        reader: Of the agent's folder.
        start: The work tree before the change.
        allowed: Patterns of files that may change.
        limits: Of the change.
    """
    files = _index(reader.entries(most=limits.listed + len(start.digests)))
    ignored = start.ignored(files)
    counted = {path: file for path, (_, file) in files.items() if path not in ignored}
    digests = _digests(reader, {path: files[path] for path in counted}, start)
    changes = [
        *(
            _change(path, file, start)
            for path, file in counted.items()
            if path not in start.base or digests.get(path) != start.base[path]
        ),
        *((path, Change("D", show(path), "000000")) for path in start.base if path not in counted),
    ]
    if len(changes) > limits.changed:
        raise BadTreeError(f"it has more than {limits.changed} changed files")
    too_large = {path for path, file in counted.items() if file.kind == _FILE and file.size > limits.file_bytes}
    graded, left_out = _separate(dict(changes), start.base, allowed, too_large, limits)
    written = {path for path, change in graded.items() if change.status != "D"}
    if len(graded) > limits.entries:
        raise BadTreeError(f"it has more than {limits.entries} changed files where files may be changed")
    if sum(counted[path].size for path in written) > limits.content_bytes:
        raise BadTreeError(
            f"its changed files, where files may be changed, hold more than {limits.content_bytes} bytes"
        )
    archive = reader.archive([files[path][0] for path in written])
    after = read_tar(archive, most=limits.content_bytes, limits=limits)
    if after.keys() != written or any(file.mode == LINK for file in after.values()):
        raise BadTreeError("it changes while it is read")
    patch = start.patch_of(after, [path for path, change in graded.items() if change.status == "D"])
    # Checked again on what git made of it: nothing else may be applied to the clean copy.
    refused = path_policy.refusal(patch.changes, allowed)
    if refused:
        raise BadTreeError(f"its changes cannot be separated: {refused}")
    return AgentChange(patch, [IgnoredFile(show(path), reason) for path, reason in sorted(left_out.items())])


def _index(listed: Sequence[ListedFile]) -> dict[bytes, tuple[int, ListedFile]]:
    """Return the files and links by path, with their indices in the list. Raises `BadTreeError`."""
    files: dict[bytes, tuple[int, ListedFile]] = {}
    for index, file in enumerate(listed):
        if file.kind not in (_FILE, _LINK):
            continue
        if file.path in files or _NO_PATH.search(file.path):
            raise BadTreeError(f"the list of its files is damaged: {show(file.path)}")
        files[file.path] = index, file
    require_folders(files, files)
    return files


def _mode(file: ListedFile) -> str:
    if file.kind == _LINK:
        return LINK
    return EXECUTABLE if file.executable else REGULAR


def _digests(
    reader: TreeReader, files: dict[bytes, tuple[int, ListedFile]], start: PatchBase
) -> dict[bytes, bytes | None]:
    """Return the files' digests; without one, a file is new or has another size than at the start."""
    digests: dict[bytes, bytes | None] = {}
    same_size: list[tuple[int, bytes]] = []
    for path, (index, file) in files.items():
        if file.kind == _LINK:
            digests[path] = TreeEntry(LINK, file.target).digest
        elif start.sizes.get(path) == file.size:
            same_size.append((index, path))
    same_size.sort()
    hashes = reader.hashes([index for index, _ in same_size])
    for (_, path), sha256 in zip(same_size, hashes, strict=True):
        digests[path] = content_digest(_mode(files[path][1]), sha256)
    return digests


def _change(path: bytes, file: ListedFile, start: PatchBase) -> tuple[bytes, Change]:
    """Return the change of a file that differs from the start's, or is new."""
    before = start.base.get(path)
    status = "A"
    if before is not None:
        was_link = before.startswith(LINK.encode())
        status = "M" if was_link == (file.kind == _LINK) else "T"
    return path, Change(status, show(path), _mode(file))


def _separate(
    changes: dict[bytes, Change],
    base: Collection[bytes],
    allowed: Sequence[str],
    too_large: Collection[bytes],
    limits: TreeLimits,
) -> tuple[dict[bytes, Change], dict[bytes, str]]:
    """Separate the changes that are graded from the others, which come with the reason.

    An allowed file may have taken the place of a folder, or lie in one that took the place of a file. It is graded only
    if allowed changes alone have deleted what was there.

    Args:
        changes: All changes by path.
        base: Paths before the changes.
        allowed: Patterns of files that may change.
        too_large: Paths of files that are larger than what is read.
        limits: Have that size.
    """
    graded: dict[bytes, Change] = {}
    left_out: dict[bytes, str] = {}
    for path, change in changes.items():
        refused = path_policy.refusal([change], allowed)
        if not refused and path in too_large:
            refused = f"{change.path} is larger than {limits.file_bytes} bytes"
        if refused:
            left_out[path] = refused
        else:
            graded[path] = change
    kept = {path for path in base if path not in graded or graded[path].status != "D"}
    kept_folders = {path[:end] for path in kept for end in _ends(path)}
    for path, change in list(graded.items()):
        if change.status == "D":
            continue
        if path in kept_folders or any(path[:end] in kept for end in _ends(path)):
            del graded[path]
            left_out[path] = f"{change.path} is in the place of files that may not be deleted"
    return graded, left_out


def _ends(path: bytes) -> list[int]:
    """Return where the folders of a path end."""
    return [end for end, byte in enumerate(path) if byte == ord("/")]
