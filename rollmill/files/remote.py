"""Recognize URLs of remote file systems."""

from __future__ import annotations

import re

_REMOTE = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*(://|::)")


def is_remote(path: str) -> bool:
    """Return whether a path is an fsspec URL."""
    return _REMOTE.match(path) is not None
