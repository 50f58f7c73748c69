"""Limits on trees that untrusted commands left, so that reading one costs this machine a bounded time and memory."""

from __future__ import annotations

from typing import NamedTuple


class TreeLimits(NamedTuple):
    """Limits on one tree; a tree beyond any of them is refused as soon as that is known."""

    entries: int = 50_000
    """Files, links and folders, also empty ones."""
    listed: int = 250_000
    """Entries of which only the names are read, ignored ones included, beyond those of the start tree."""
    changed: int = 50_000
    """Changed files that are not ignored, whether they are graded or not."""
    name_bytes: int = 24 << 20
    """All paths and the targets of links together."""
    path_bytes: int = 4000
    """One path from the tree's root."""
    depth: int = 100
    """Names in one path."""
    file_bytes: int = 256 << 20
    """Content of one file."""
    content_bytes: int = 256 << 20
    """Content of all files together; hard links to one file count each."""
    seconds: float = 60.0
    """Time to list and copy the tree out of its sandbox."""


IMAGE_TREE = TreeLimits(entries=200_000, seconds=600.0)
"""Limits on the work tree of a problem's image: its author, not an agent, made it; read once for all agents."""
CHANGE = TreeLimits(entries=2_000, file_bytes=8 << 20, content_bytes=16 << 20)
"""Limits on an agent's change. Entries and bytes are those of the files that are graded; a larger file is left out."""


def built_tree(start: int) -> TreeLimits:
    """Return the limits on the work tree that a build made of a start tree with so many files."""
    return TreeLimits(entries=2 * start + TreeLimits().entries)
