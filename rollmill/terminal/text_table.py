"""Tables of plain text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rollmill.terminal.escapes import visible_line


def aligned(titles: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines of a table: titles, a rule, rows; the first column aligned left, the others right.

    Invisible characters in cells are escaped.
    """
    cells = [[visible_line(cell) for cell in line] for line in (titles, *(row.values() for row in rows))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
