"""Sudoku puzzles with exactly one solution."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from rollmill.environments.stateful.cells import Cell, name_cell, normalize_spelling, read_rows
from rollmill.environments.stateful.pictures import BLACK, BLUE, GREY, WHITE, Picture, Tile
from rollmill.environments.stateful.sudoku_solver import BOX_SHAPE, Digits, find_solutions, peers
from rollmill.environments.stateful.world import Difficulty, IllegalActionError

_SYMBOLS = ".123456789"
_WRITE = re.compile(r"r([1-9])c([1-9]) ?= ?([1-9])")
_CLEAR = re.compile(r"clear r([1-9])c([1-9])")
_KINDS: dict[Difficulty, tuple[int, int]] = {"easy": (6, 16), "medium": (9, 30), "hard": (9, 50)}
"""Side, and number of empty cells."""


class Sudoku:
    """A sudoku of side 4, 6 or 9. A state has all digits, row by row, 0 for an empty cell.

    Stored as `{"grid": ["53..7....", ...], "givens": [...]}`; without `givens`, all digits of the grid are given.
    `easy` has side 6 and 16 empty cells, `medium` side 9 and 30, `hard` side 9 and 50.
    """

    name: ClassVar[str] = "sudoku"
    rules: ClassVar[str] = (
        'You fill a sudoku. "r2c3=4" writes 4 into the empty cell of row 2, column 3. "clear r2c3" empties a cell that '
        "you filled. A digit that its row, column or box has already is invalid, and so is changing a given digit."
    )
    symbols: ClassVar[str] = ". an empty cell; lines part the boxes"
    example: ClassVar[tuple[str, ...]] = ("r2c3=4", "clear r1c1", "r1c1=2")

    def __init__(self, givens: Digits, start: Digits) -> None:
        """Set up the puzzle. Raises `ValueError` if the givens do not have exactly one solution."""
        self._side = int(len(givens) ** 0.5)
        self._givens = givens
        self.start = start
        solved = find_solutions(givens, 2)
        if len(solved) != 1:
            raise ValueError("the sudoku has more than one solution" if solved else "the sudoku has no solution")
        self._solution = solved[0]

    @classmethod
    def generate(cls, rng: random.Random, difficulty: Difficulty) -> Self:
        """See `World`."""
        side, empty = _KINDS[difficulty]
        while True:
            (full,) = find_solutions((0,) * (side * side), 1, rng)
            givens = list(full)
            for cell in rng.sample(range(side * side), side * side):
                digit, givens[cell] = givens[cell], 0
                # A digit without which the solution is not unique has to stay.
                if len(find_solutions(tuple(givens), 2)) > 1:
                    givens[cell] = digit
                if givens.count(0) == empty:
                    return cls(tuple(givens), tuple(givens))

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Self:
        """See `World`."""
        start = _read_digits(stored, "grid")
        givens = _read_digits(stored, "givens") if "givens" in stored else start
        if len(start) != len(givens) or any(
            fixed and fixed != digit for fixed, digit in zip(givens, start, strict=True)
        ):
            raise ValueError("a given digit is not in the grid")
        world = cls(givens, start)
        if any(world._clashes(start, cell, digit) for cell, digit in enumerate(start) if digit):
            raise ValueError("a digit stands twice in a row, column or box")
        return world

    def dump(self, state: Digits) -> dict[str, Any]:
        """See `World`."""
        stored = {"grid": self._rows(state)}
        return stored if state == self._givens else {**stored, "givens": self._rows(self._givens)}

    @property
    def goal(self) -> str:
        """See `World`."""
        rows, columns = BOX_SHAPE[self._side]
        return f"Every row, every column and every box of {rows} x {columns} cells holds 1 to {self._side} once each."

    def read_action(self, text: str) -> str | None:
        """See `World`."""
        text = normalize_spelling(text)
        if match := _WRITE.fullmatch(text):
            row, column, digit = match.groups()
            return f"r{row}c{column}={digit}"
        return text if _CLEAR.fullmatch(text) else None

    def legal_actions(self, state: Digits) -> list[str]:
        """See `World`."""
        actions = []
        for cell, digit in enumerate(state):
            if digit:
                actions += [] if self._givens[cell] else [f"clear {self._name(cell)}"]
                continue
            taken = {state[peer] for peer in peers(self._side)[cell]}
            actions += [f"{self._name(cell)}={d}" for d in range(1, self._side + 1) if d not in taken]
        return actions

    def next_state(self, state: Digits, action: str) -> Digits:
        """See `World`."""
        match = _WRITE.fullmatch(action) or _CLEAR.fullmatch(action)
        assert match, action
        row, column, *written = map(int, match.groups())
        if max(row, column, *written) > self._side:
            raise IllegalActionError(f"rows, columns and digits go from 1 to {self._side}")
        cell = (row - 1) * self._side + column - 1
        digit = written[0] if written else 0
        if fault := self._fault(state, cell, digit):
            raise IllegalActionError(fault)
        return (*state[:cell], digit, *state[cell + 1 :])

    def is_goal(self, state: Digits) -> bool:
        """See `World`."""
        return state == self._solution

    def distance_bound(self, state: Digits) -> int:
        """Return the number of remaining actions: one for every empty cell, two for every wrong digit."""
        return sum(1 if not digit else 2 for digit, right in zip(state, self._solution, strict=True) if digit != right)

    def plan(self, state: Digits) -> list[str]:
        """Return actions that clear the wrong digits, then write the missing ones."""
        wrong = [cell for cell, digit in enumerate(state) if digit and digit != self._solution[cell]]
        missing = [cell for cell, digit in enumerate(state) if digit != self._solution[cell]]
        return [f"clear {self._name(cell)}" for cell in wrong] + [
            f"{self._name(cell)}={self._solution[cell]}" for cell in missing
        ]

    def render(self, state: Digits) -> str:
        """See `World`."""
        rows, columns = BOX_SHAPE[self._side]
        lines = []
        for number, row in enumerate(self._rows(state)):
            if number and number % rows == 0:
                lines.append("-" * (self._side * 2 + (self._side // columns - 1) * 2 - 1))
            boxes = (" ".join(row[at : at + columns]) for at in range(0, self._side, columns))
            lines.append(" | ".join(boxes))
        filled = [f"{self._name(cell)}={digit}" for cell, digit in enumerate(state) if digit and not self._givens[cell]]
        return "\n".join([*lines, f"You filled: {', '.join(filled)}"] if filled else lines)

    def picture(self, state: Digits) -> Picture:
        """See `World`."""
        tiles = [
            Tile(GREY if fixed else WHITE, "", BLACK if fixed else BLUE, str(digit or ""))
            for fixed, digit in zip(self._givens, state, strict=True)
        ]
        rows = [tiles[at : at + self._side] for at in range(0, len(tiles), self._side)]
        legend = [(Tile(GREY, "", BLACK, "1"), "given"), (Tile(WHITE, "", BLUE, "1"), "yours")]
        return Picture(rows, legend, numbered=True, block=BOX_SHAPE[self._side])

    def _rows(self, digits: Digits) -> list[str]:
        text = "".join(_SYMBOLS[digit] for digit in digits)
        return [text[at : at + self._side] for at in range(0, len(text), self._side)]

    def _cell(self, cell: int) -> Cell:
        return divmod(cell, self._side)

    def _name(self, cell: int) -> str:
        return name_cell(self._cell(cell))

    def _clashes(self, state: Digits, cell: int, digit: int) -> bool:
        return any(state[peer] == digit for peer in peers(self._side)[cell])

    def _fault(self, state: Digits, cell: int, digit: int) -> str | None:
        if self._givens[cell]:
            return "the digit there is given"
        if not digit:
            return None if state[cell] else "the cell is empty"
        if state[cell]:
            return "the cell is not empty: clear it first"
        return f"its row, column or box has a {digit}" if self._clashes(state, cell, digit) else None


def _read_digits(stored: Mapping[str, Any], key: str) -> Digits:
    rows = read_rows(stored, _SYMBOLS, key)
    if len(rows) != len(rows[0]) or len(rows) not in BOX_SHAPE:
        raise ValueError(f"{key} is {len(rows)} x {len(rows[0])}: it must be a square of side 4, 6 or 9")
    digits = tuple(_SYMBOLS.index(symbol) for symbol in "".join(rows))
    if max(digits) > len(rows):
        raise ValueError(f"{key} has the digit {max(digits)}, more than its side")
    return digits
