"""Solve sudokus by depth-first search; the cell with the fewest candidates is tried first."""

from __future__ import annotations

import functools
import random

Digits = tuple[int, ...]
"""Digits of all cells, row by row; 0 for an empty cell."""

BOX_SHAPE = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Rows and columns of a box, by the sudoku's side."""


@functools.cache
def peers(side: int) -> list[tuple[int, ...]]:
    """Return the other cells of each cell's row, column and box."""
    rows, columns = BOX_SHAPE[side]

    def groups(cell: int) -> tuple[int, int, tuple[int, int]]:
        r, c = divmod(cell, side)
        return r, c, (r // rows, c // columns)

    cells = range(side * side)
    return [
        tuple(
            other
            for other in cells
            if other != cell and any(a == b for a, b in zip(groups(cell), groups(other), strict=True))
        )
        for cell in cells
    ]


def find_solutions(digits: Digits, at_most: int, rng: random.Random | None = None) -> list[Digits]:
    """Return up to `at_most` solutions, in the order of a depth-first search; none if two given digits conflict.

    Digits are tried in increasing order, or shuffled by `rng`.
    """
    side = int(len(digits) ** 0.5)
    candidates = [(1 << side) - 1] * len(digits)  # of each cell as a bit mask: bit d - 1 for digit d
    cells = list(digits)
    for cell, digit in enumerate(digits):
        if not digit:
            continue
        bit = 1 << (digit - 1)
        if not candidates[cell] & bit:
            return []
        for peer in peers(side)[cell]:
            candidates[peer] &= ~bit
    solved: list[Digits] = []
    _search(cells, candidates, side, at_most, rng, solved)
    return solved


def _search(
    cells: list[int], candidates: list[int], side: int, at_most: int, rng: random.Random | None, solved: list[Digits]
) -> None:
    """Append solutions to `solved`, up to `at_most`.

    Args:
        cells: Digits of all cells; restored before the function returns.
        candidates: Bit masks of the candidates of all cells; restored likewise.
        side: Side of the sudoku.
        at_most: Number of solutions after which the search ends.
        rng: Shuffles the digits that are tried; None for increasing order.
        solved: Solutions found so far.
    """
    empty = [cell for cell, digit in enumerate(cells) if not digit]
    if not empty:
        solved.append(tuple(cells))
        return
    cell = min(empty, key=lambda index: candidates[index].bit_count())
    digits = [digit for digit in range(1, side + 1) if candidates[cell] & 1 << (digit - 1)]
    if rng:
        rng.shuffle(digits)
    for digit in digits:
        bit = 1 << (digit - 1)
        # Only peers that had the candidate get it back after the recursion.
        changed = [peer for peer in peers(side)[cell] if candidates[peer] & bit]
        cells[cell] = digit
        for peer in changed:
            candidates[peer] ^= bit
        _search(cells, candidates, side, at_most, rng, solved)
        for peer in changed:
            candidates[peer] ^= bit
        cells[cell] = 0
        if len(solved) >= at_most:
            return
