"""Limits on trees that untrusted commands left, so that reading one costs this machine a bounded time and memory."""

from __future__ import annotations

from typing import NamedTuple


class TreeLimits(NamedTuple):
    """Limits on one tree; a tree beyond any of them is refused as soon as that is known."""

    entries: int = 50_000
    """Files, links and folders, also empty ones."""
    listed: int = 250_000
    """Entries whose names alone are read, since they are ignored or unchanged."""
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
CHANGE = TreeLimits(file_bytes=16 << 20, content_bytes=32 << 20, entries=10_000)
"""Limits on the changes of an agent: `entries` and bytes count the files that are graded alone."""
