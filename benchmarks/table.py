"""Prints tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def show(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of cells under their column names: the first column left-aligned, the others right-aligned."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    widths = {name: max(len(name), *(len(row.get(name, "")) for row in rows)) for name in columns}
    print(f"\n{title}")
    for row in ({name: name for name in columns}, *rows):
        first, *others = columns
        cells = [row.get(first, "").ljust(widths[first]), *(row.get(name, "").rjust(widths[name]) for name in others)]
        print("  ".join(cells).rstrip())
