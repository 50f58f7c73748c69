"""Eight queens: place queens so that none attacks another."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar, Self

from rollmill.environments.stateful.cells import Cell, find_cells, name_cell, normalize_spelling, read_rows
from rollmill.environments.stateful.pictures import BLACK, BLUE, GREY, WHITE, Picture, Tile
from rollmill.environments.stateful.world import Difficulty, IllegalActionError

Queens = frozenset[Cell]
_ACTION = re.compile(r"(place|remove) r([1-9][0-9]?)c([1-9][0-9]?)")
_KINDS: dict[Difficulty, tuple[int, int]] = {"easy": (4, 1), "medium": (2, 3), "hard": (1, 5)}
"""Number of given queens, and of queens at random positions at the start."""
_SIDES = range(4, 13)


class EightQueens:
    """A board of 8 x 8 with some given queens. A state is the set of positions of the other queens.

    Stored as `{"grid": ["...Q....", ...]}`, `Q` for a given queen, `q` for another; the side may be 4 to 12. `easy`
    has four given queens and one more at a random position, `medium` two and three, `hard` one and five.
    """

    name: ClassVar[str] = "eight_queens"
    rules: ClassVar[str] = (
        'You place queens on a chess board. "place r2c3" puts a queen on row 2, column 3, "remove r2c3" takes it away. '
        "Given queens stay. Placing a queen where one stands, or more queens than the board has rows, is invalid."
    )
    symbols: ClassVar[str] = ". a free square, Q a given queen, q a queen of yours"
    example: ClassVar[tuple[str, ...]] = ("place r2c3", "remove r4c4")

    def __init__(self, side: int, fixed: Queens, start: Queens) -> None:
        """Set up the puzzle; `fixed` are the given queens. Raises `ValueError` if they leave no solution."""
        self._side = side
        self._fixed = fixed
        self.start = start
        if len(fixed) + len(start) > side:
            raise ValueError(f"there are {len(fixed) + len(start)} queens: {side} at most")
        if self._solution(frozenset()) is None:
            raise ValueError("the given queens leave no solution")

    @classmethod
    def generate(cls, rng: random.Random, difficulty: Difficulty) -> Self:
        """See `World`."""
        while True:
            columns = rng.sample(range(8), 8)
            queens = list(enumerate(columns))
            if not _attacks(queens):
                fixed, missing = _KINDS[difficulty]
                kept = frozenset(rng.sample(queens, fixed))
                free = [(r, c) for r in range(8) for c in range(8) if (r, c) not in kept]
                return cls(8, kept, frozenset(rng.sample(free, missing)))

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Self:
        """See `World`."""
        rows = read_rows(stored, ".Qq")
        if len(rows) != len(rows[0]) or len(rows) not in _SIDES:
            raise ValueError(f"grid is {len(rows)} x {len(rows[0])}: it must be a square of side 4 to 12")
        return cls(len(rows), frozenset(find_cells(rows, "Q")), frozenset(find_cells(rows, "q")))

    def dump(self, state: Queens) -> dict[str, Any]:
        """See `World`."""
        sides = range(self._side)
        return {"grid": ["".join(self._symbol((r, c), state) for c in sides) for r in sides]}

    @property
    def goal(self) -> str:
        """See `World`."""
        return (
            f"{self._side} queens stand on the board, and no two of them share a row, a column or a diagonal. "
            f"{len(self._fixed)} of them are given."
        )

    def read_action(self, text: str) -> str | None:
        """See `World`."""
        action = normalize_spelling(text)
        return action if _ACTION.fullmatch(action) else None

    def legal_actions(self, state: Queens) -> list[str]:
        """See `World`."""
        removals = [f"remove {name_cell(cell)}" for cell in sorted(state)]
        if len(state) + len(self._fixed) == self._side:
            return removals
        cells = ((r, c) for r in range(self._side) for c in range(self._side))
        return [f"place {name_cell(cell)}" for cell in cells if cell not in state | self._fixed] + removals

    def next_state(self, state: Queens, action: str) -> Queens:
        """See `World`."""
        match = _ACTION.fullmatch(action)
        assert match, action
        verb, row, column = match.groups()
        cell = (int(row) - 1, int(column) - 1)
        if max(cell) >= self._side:
            raise IllegalActionError(f"rows and columns go from 1 to {self._side}")
        if cell in self._fixed:
            raise IllegalActionError("a given queen stands there")
        if verb == "remove":
            if cell not in state:
                raise IllegalActionError("no queen stands there")
            return state - {cell}
        if cell in state:
            raise IllegalActionError("a queen stands there")
        if len(state) + len(self._fixed) == self._side:
            raise IllegalActionError(f"there are {self._side} queens: remove one first")
        return state | {cell}

    def is_goal(self, state: Queens) -> bool:
        """See `World`."""
        queens = state | self._fixed
        return len(queens) == self._side and not _attacks(queens)

    def distance_bound(self, state: Queens) -> int:
        """Return the number of actions of the shortest plan."""
        return len(self.plan(state))

    def plan(self, state: Queens) -> list[str]:
        """Return the actions to the solution that keeps the most queens: removals, then placements."""
        solution = self._solution(state)
        assert solution is not None  # checked by the constructor
        removals = [f"remove {name_cell(cell)}" for cell in sorted(state - solution)]
        return removals + [f"place {name_cell(cell)}" for cell in sorted(solution - state - self._fixed)]

    def render(self, state: Queens) -> str:
        """See `World`."""
        lines = [" ".join(row) for row in self.dump(state)["grid"]]
        pairs = [f"{name_cell(a)} and {name_cell(b)}" for a, b in _attacks(state | self._fixed)]
        return "\n".join([*lines, f"They attack each other: {'; '.join(pairs)}"] if pairs else lines)

    def picture(self, state: Queens) -> Picture:
        """See `World`."""
        fixed, added = Tile(GREY, "disc", BLACK, "Q"), Tile(GREY, "disc", BLUE, "Q")
        rows = []
        for r, line in enumerate(self.dump(state)["grid"]):
            fills = [WHITE if (r + c) % 2 == 0 else GREY for c in range(self._side)]
            drawn = {"Q": fixed, "q": added}
            rows.append(
                [
                    drawn[symbol]._replace(fill=fill) if symbol in drawn else Tile(fill)
                    for symbol, fill in zip(line, fills, strict=True)
                ]
            )
        return Picture(rows, [(fixed, "a given queen"), (added, "a queen of yours")], numbered=True)

    def _symbol(self, cell: Cell, state: Queens) -> str:
        if cell in self._fixed:
            return "Q"
        return "q" if cell in state else "."

    def _solution(self, kept: Queens) -> Queens | None:
        """Return the first solution with all given queens and the most of `kept`, by branch and bound."""
        if _attacks(self._fixed):
            return None
        given_rows = {r for r, _ in self._fixed}
        rows = [r for r in range(self._side) if r not in given_rows]
        # Rows with a queen to keep first, so that the bound below prunes early.
        rows.sort(key=lambda r: not any(row == r for row, _ in kept))
        left = [sum(any(row == r for row, _ in kept) for r in rows[at:]) for at in range(len(rows) + 1)]
        best: tuple[int, Queens | None] = (-1, None)

        def search(at: int, queens: list[Cell], matches: int) -> None:
            nonlocal best
            # Bound: even if every row to come keeps its queen, the best solution so far is not exceeded.
            if matches + left[at] <= best[0]:
                return
            if at == len(rows):
                best = (matches, frozenset(queens))
                return
            cells = [(rows[at], c) for c in range(self._side)]
            # Queens to keep are tried first: a good solution early makes the bound tight.
            for cell in sorted(cells, key=lambda cell: cell not in kept):
                if not any(_attack(cell, queen) for queen in queens):
                    search(at + 1, [*queens, cell], matches + 1 if cell in kept else matches)

        search(0, sorted(self._fixed), 0)
        return best[1]


def _attack(a: Cell, b: Cell) -> bool:
    return a[0] == b[0] or a[1] == b[1] or abs(a[0] - b[0]) == abs(a[1] - b[1])


def _attacks(queens: Queens | list[Cell]) -> list[tuple[Cell, Cell]]:
    return [(a, b) for a, b in combinations(sorted(queens), 2) if _attack(a, b)]
