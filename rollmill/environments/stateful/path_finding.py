"""Path finding: walk from one cell of a grid with walls to another."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

from rollmill.environments.stateful.cells import (
    DIRECTIONS,
    Cell,
    beside,
    find_cells,
    find_single,
    normalize_spelling,
    read_rows,
)
from rollmill.environments.stateful.pictures import BLUE, DARK, GREEN, WHITE, Picture, Tile
from rollmill.environments.stateful.world import Difficulty, IllegalActionError

_SYMBOLS = "#.@G+"


class _Kind(NamedTuple):
    side: int
    walls: float
    """Share of cells that are walls."""
    at_least: int
    """Least number of steps of the shortest path."""


_KINDS: dict[Difficulty, _Kind] = {
    "easy": _Kind(10, 0.33, 20),
    "medium": _Kind(12, 0.36, 26),
    "hard": _Kind(15, 0.36, 34),
}


class PathFinding:
    """A grid with walls. A state is the cell of the player.

    Stored as `{"grid": ["#..", ...]}` of the characters in `symbols`. `easy` is 10 x 10 with a shortest path of
    at least 20 steps, `medium` 12 x 12 with 26, `hard` 15 x 15 with 34.
    """

    name: ClassVar[str] = "path_finding"
    rules: ClassVar[str] = (
        'You walk on a grid. The actions are "up", "down", "left" and "right": each moves you one cell. '
        "Moving into a wall or off the grid is invalid."
    )
    symbols: ClassVar[str] = "@ you, G the goal, # a wall, . a free cell"
    example: ClassVar[tuple[str, ...]] = ("up", "up", "right")
    goal = "You stand on the goal."

    def __init__(self, size: Cell, walls: frozenset[Cell], start: Cell, goal_cell: Cell) -> None:
        """Set up the puzzle. Raises `ValueError` if no path leads to the goal.

        Args:
            size: Rows and columns.
            walls: Cells that cannot be entered.
            start: Cell where the player starts.
            goal_cell: Cell to reach.
        """
        self._size = size
        self._walls = walls
        self._goal = goal_cell
        self._steps = self._steps_from(goal_cell)
        self.start = start
        if start not in self._steps:
            raise ValueError("no path leads to the goal")

    @classmethod
    def generate(cls, rng: random.Random, difficulty: Difficulty) -> Self:
        """See `World`."""
        kind = _KINDS[difficulty]
        cells = [(r, c) for r in range(kind.side) for c in range(kind.side)]
        while True:
            walls = frozenset(cell for cell in cells if rng.random() < kind.walls)
            goal = rng.choice([cell for cell in cells if cell not in walls])
            # Start and goal are the same here: only the distances of all cells to the goal are needed.
            steps = cls((kind.side, kind.side), walls, goal, goal)._steps
            far = [cell for cell in cells if steps.get(cell, 0) >= kind.at_least]
            if far:
                return cls((kind.side, kind.side), walls, rng.choice(far), goal)

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Self:
        """See `World`."""
        rows = read_rows(stored, _SYMBOLS)
        start = find_single(rows, "@+", "cell @")
        return cls(
            (len(rows), len(rows[0])), frozenset(find_cells(rows, "#")), start, find_single(rows, "G+", "cell G")
        )

    def dump(self, state: Cell) -> dict[str, Any]:
        """See `World`."""
        rows, columns = self._size
        return {"grid": ["".join(self._symbol((r, c), state) for c in range(columns)) for r in range(rows)]}

    def read_action(self, text: str) -> str | None:
        """See `World`."""
        action = normalize_spelling(text)
        return action if action in DIRECTIONS else None

    def legal_actions(self, state: Cell) -> list[str]:
        """See `World`."""
        return [direction for direction in DIRECTIONS if self._is_free(beside(state, direction))]

    def next_state(self, state: Cell, action: str) -> Cell:
        """See `World`."""
        cell = beside(state, action)
        if not self._is_free(cell):
            raise IllegalActionError("a wall is there" if cell in self._walls else "the grid ends there")
        return cell

    def is_goal(self, state: Cell) -> bool:
        """See `World`."""
        return state == self._goal

    def distance_bound(self, state: Cell) -> int | None:
        """Return the number of steps of the shortest path."""
        return self._steps.get(state)

    def plan(self, state: Cell) -> list[str] | None:
        """Return the shortest path; ties are broken in the order up, down, left, right."""
        if state not in self._steps:
            return None
        path = []
        while steps := self._steps[state]:
            nearer = next(d for d in self.legal_actions(state) if self._steps[beside(state, d)] < steps)
            path.append(nearer)
            state = beside(state, nearer)
        return path

    def render(self, state: Cell) -> str:
        """See `World`."""
        return "\n".join(self.dump(state)["grid"])

    def picture(self, state: Cell) -> Picture:
        """See `World`."""
        tiles = {
            "#": Tile(DARK),
            ".": Tile(WHITE),
            "G": Tile(WHITE, "ring", GREEN),
            "@": Tile(WHITE, "disc", BLUE),
            "+": Tile(GREEN, "disc", BLUE),
        }
        rows = [[tiles[symbol] for symbol in row] for row in self.dump(state)["grid"]]
        return Picture(rows, [(tiles["@"], "you"), (tiles["G"], "the goal"), (tiles["#"], "a wall")])

    def _symbol(self, cell: Cell, state: Cell) -> str:
        if cell == state:
            return "+" if cell == self._goal else "@"
        if cell == self._goal:
            return "G"
        return "#" if cell in self._walls else "."

    def _is_free(self, cell: Cell) -> bool:
        return 0 <= cell[0] < self._size[0] and 0 <= cell[1] < self._size[1] and cell not in self._walls

    def _steps_from(self, cell: Cell) -> dict[Cell, int]:
        """Return the steps from a cell to each reachable cell, by breadth-first search."""
        steps = {cell: 0}
        queue = deque([cell])
        while queue:
            current = queue.popleft()
            for direction in DIRECTIONS:
                neighbour = beside(current, direction)
                if neighbour not in steps and self._is_free(neighbour):
                    steps[neighbour] = steps[current] + 1
                    queue.append(neighbour)
        return steps
