"""Boards of cells: rows of characters, the four directions, and what a cell is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Cell = tuple[int, int]
"""0-based row and column; `r1c1` in text is (0, 0)."""

DIRECTIONS: dict[str, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
LONGEST_SIDE = 40


def read_rows(stored: Mapping[str, Any], symbols: str, key: str = "grid") -> list[str]:
    """Read the rows of a board, all of one length. Raises `ValueError` with the position for anything else."""
    rows = stored.get(key)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, str) for row in rows):
        raise ValueError(f"{key} is not a list of rows of text")
    if not 1 <= len(rows[0]) <= LONGEST_SIDE or len(rows) > LONGEST_SIDE:
        raise ValueError(f"{key} must have 1 to {LONGEST_SIDE} rows and columns")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} of {key} has {len(row)} cells, the first has {len(rows[0])}")
        if unknown := set(row) - set(symbols):
            raise ValueError(f"row {number} of {key} has {min(unknown)!r}: use {' '.join(symbols)}")
    return rows


def find_cells(rows: Iterable[str], symbols: str) -> list[Cell]:
    """Return the cells that hold one of `symbols`, row by row."""
    return [(r, c) for r, row in enumerate(rows) for c, symbol in enumerate(row) if symbol in symbols]


def find_single(rows: Iterable[str], symbols: str, what: str) -> Cell:
    """Return the only cell that holds one of `symbols`. Raises `ValueError` where there are others, or none."""
    cells = find_cells(rows, symbols)
    if len(cells) != 1:
        raise ValueError(f"there must be one {what}, found {len(cells)}")
    return cells[0]


def name_cell(cell: Cell) -> str:
    """Return `r1c3` for row 1, column 3."""
    return f"r{cell[0] + 1}c{cell[1] + 1}"


def beside(cell: Cell, direction: str, steps: int = 1) -> Cell:
    """Return the cell `steps` away in a direction."""
    down, right = DIRECTIONS[direction]
    return cell[0] + steps * down, cell[1] + steps * right


def normalize_spelling(text: str) -> str:
    """Return a text in lower case with single spaces, as actions are compared."""
    return " ".join(text.lower().split())
