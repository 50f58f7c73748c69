"""The bytes of one row of a file, and limits on their size."""

from __future__ import annotations

from typing import NamedTuple

LIST_KEYS = ("examples", "data", "rows", "results", "problems", "trajectories")
"""Keys of a JSON object under which its rows are searched."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

LARGEST_ROW = 1 << 28
"""Bytes of one row, and of the text around all rows: more is a mistake, or an attack on memory."""


class RawRow(NamedTuple):
    """The bytes of one row, and its line or position, counted from 1."""

    number: int
    text: bytes
    offset: int | None = None
    """Byte offset of a line in the decompressed file; None for other formats."""
