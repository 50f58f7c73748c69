"""One row of a file as its bytes, and the bounds of it."""

from __future__ import annotations

from typing import NamedTuple

LIST_KEYS = ("examples", "data", "rows", "results", "problems", "trajectories")
"""Keys under which an object's rows are looked for."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

LARGEST_ROW = 1 << 28
"""Bytes of one row, and of what stands around all rows: more is not a row but a mistake, or an attack on memory."""


class RawRow(NamedTuple):
    """The bytes of one row, and its 1-based line or position."""

    number: int
    text: bytes
    offset: int | None = None
    """Of a line: where it begins in the unpacked file."""
