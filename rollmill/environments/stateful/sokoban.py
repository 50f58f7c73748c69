"""Sokoban: push boxes onto goals; they cannot be pulled."""

from __future__ import annotations

import random
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
from rollmill.environments.stateful.pictures import BLUE, BROWN, DARK, GREEN, WHITE, Picture, Tile
from rollmill.environments.stateful.sokoban_solver import Boxes, Room, solve
from rollmill.environments.stateful.world import Difficulty, IllegalActionError

_SYMBOLS = "#-.@+$* "
_PUSHES = {f"push {direction}": direction for direction in DIRECTIONS}
_LETTERS = dict(zip("UDLR", DIRECTIONS, strict=True))
_LETTER_OF = {direction: letter for letter, direction in _LETTERS.items()}
_SEARCHED = 1500
"""Most states that are searched for a new puzzle; rooms that need more are skipped."""


class Layout(NamedTuple):
    """A state: the positions of the player and the boxes."""

    player: Cell
    boxes: Boxes


class _Kind(NamedTuple):
    side: int
    """Side of the room in cells, including the outer walls."""
    boxes: int
    walls: int
    """Number of inner walls."""
    at_least: int
    """Least number of actions of the shortest solution."""


_KINDS: dict[Difficulty, _Kind] = {
    "easy": _Kind(7, 1, 3, 12),
    "medium": _Kind(7, 2, 2, 16),
    "hard": _Kind(8, 3, 4, 24),
}


class Sokoban:
    """A Sokoban puzzle.

    Stored as `{"grid": [...]}` in Sokoban's usual characters, with `-` or a space for floor, and optionally
    `"solution"`, a letter of U, D, L, R for each step, which is the plan for all states along it. `easy` has one box
    and a shortest solution of at least 12 actions, `medium` two boxes and 16, on 7 x 7 cells; `hard` three boxes and
    24 on 8 x 8.
    """

    name: ClassVar[str] = "sokoban"
    rules: ClassVar[str] = (
        'You push boxes in a warehouse. "up", "down", "left" and "right" move you one cell, onto a free cell. '
        '"push up", "push down", "push left" and "push right" move you onto the cell of the box beside you, and the '
        "box one cell on, which must be free. A box cannot be pulled: one in a corner is stuck for good."
    )
    symbols: ClassVar[str] = "@ you, $ a box, . a goal, * a box on a goal, + you on a goal, # a wall, - floor"
    example: ClassVar[tuple[str, ...]] = ("up", "push left", "down")
    goal = "Every goal has a box on it."

    def __init__(self, room: Room, start: Layout, solution: str = "") -> None:
        """Set up the puzzle. Raises `ValueError` for a wrong `solution`, and for a puzzle that is a dead end."""
        self._room = room
        self.start = start
        self._solution = solution
        if room.least_pushes(start.boxes) is None:
            raise ValueError("a box can never reach a goal")
        self._known = self._follow(solution)

    @classmethod
    def generate(cls, rng: random.Random, difficulty: Difficulty) -> Self:
        """See `World`."""
        kind = _KINDS[difficulty]
        inside = [(r, c) for r in range(1, kind.side - 1) for c in range(1, kind.side - 1)]
        while True:
            cells = rng.sample(inside, kind.walls + 2 * kind.boxes + 1)
            walls, rest = cells[: kind.walls], cells[kind.walls :]
            room = Room(frozenset(inside) - frozenset(walls), frozenset(rest[1 : kind.boxes + 1]))
            start = Layout(rest[0], frozenset(rest[kind.boxes + 1 :]))
            if (room.least_pushes(start.boxes) or 0) * 2 < kind.at_least - 4:
                continue  # a cheap filter before the search below, which most rooms would fail
            steps = solve(room, start.player, start.boxes, _SEARCHED)
            if steps is not None and len(steps) >= kind.at_least:
                return cls(room, start, "".join(_LETTER_OF[step] for step in steps))

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Self:
        """See `World`."""
        rows = read_rows(stored, _SYMBOLS)
        boxes, goals = frozenset(find_cells(rows, "$*")), frozenset(find_cells(rows, ".+*"))
        if not boxes or len(boxes) != len(goals):
            raise ValueError(f"there are {len(boxes)} boxes and {len(goals)} goals: there must be as many")
        if len(boxes) > 10:
            raise ValueError(f"there are {len(boxes)} boxes: at most 10 can be played")
        solution = stored.get("solution", "")
        if not isinstance(solution, str) or set(solution) - set(_LETTERS):
            raise ValueError("solution is not a text of U, D, L and R")
        room = Room(frozenset(find_cells(rows, "- .@+$*")), goals, (len(rows), len(rows[0])))
        return cls(room, Layout(find_single(rows, "@+", "player"), boxes), solution)

    def dump(self, state: Layout) -> dict[str, Any]:
        """See `World`; the solution is only stored with the first state."""
        rows, columns = self._room.size
        grid = ["".join(self._symbol((r, c), state) for c in range(columns)) for r in range(rows)]
        return {"grid": grid, "solution": self._solution} if self._solution and state == self.start else {"grid": grid}

    def read_action(self, text: str) -> str | None:
        """See `World`."""
        action = normalize_spelling(text)
        return action if action in DIRECTIONS or action in _PUSHES else None

    def legal_actions(self, state: Layout) -> list[str]:
        """See `World`."""
        return [action for action in (*DIRECTIONS, *_PUSHES) if self._fault(state, action) is None]

    def next_state(self, state: Layout, action: str) -> Layout:
        """See `World`."""
        if fault := self._fault(state, action):
            raise IllegalActionError(fault)
        direction = _PUSHES.get(action, action)
        player = beside(state.player, direction)
        boxes = state.boxes
        return Layout(player, boxes - {player} | {beside(player, direction)} if action in _PUSHES else boxes)

    def is_goal(self, state: Layout) -> bool:
        """See `World`."""
        return state.boxes == self._room.goals

    def distance_bound(self, state: Layout) -> int | None:
        """Return a lower bound of the remaining pushes; None if a box can never reach a goal.

        Every box is treated as alone in the room, so not every dead end is detected.
        """
        return self._room.least_pushes(state.boxes)

    def plan(self, state: Layout) -> list[str] | None:
        """Return the rest of the stored solution if the state is on it, else the shortest solution."""
        known = self._known.get(state)
        if known is not None:
            return known
        steps = solve(self._room, state.player, state.boxes)
        return None if steps is None else self._spell(state, steps)

    def render(self, state: Layout) -> str:
        """See `World`."""
        return "\n".join(self.dump(state)["grid"])

    def picture(self, state: Layout) -> Picture:
        """See `World`."""
        tiles = {
            "#": Tile(DARK),
            "-": Tile(WHITE),
            ".": Tile(WHITE, "ring", GREEN),
            "$": Tile(WHITE, "box", BROWN),
            "*": Tile(WHITE, "box", GREEN),
            "@": Tile(WHITE, "disc", BLUE),
            "+": Tile("#bfe6c8", "disc", BLUE),
        }
        names = {"@": "you", "+": "you on a goal", "$": "a box", ".": "a goal", "*": "a box on a goal", "#": "a wall"}
        rows = [[tiles[symbol] for symbol in row] for row in self.dump(state)["grid"]]
        return Picture(rows, [(tiles[symbol], name) for symbol, name in names.items()])

    def _fault(self, state: Layout, action: str) -> str | None:
        direction = _PUSHES.get(action, action)
        cell = beside(state.player, direction)
        if cell not in self._room.floor:
            return "a wall is there"
        if action not in _PUSHES:
            return f'a box is there: "push {direction}" would push it' if cell in state.boxes else None
        if cell not in state.boxes:
            return "no box is there"
        behind = beside(cell, direction)
        if behind not in self._room.floor:
            return "a wall is behind the box"
        return "another box is behind the box" if behind in state.boxes else None

    def _spell(self, state: Layout, steps: list[str]) -> list[str]:
        """Convert directions to actions: moves and pushes."""
        actions = []
        for direction in steps:
            action = f"push {direction}" if beside(state.player, direction) in state.boxes else direction
            state = self.next_state(state, action)
            actions.append(action)
        return actions

    def _follow(self, solution: str) -> dict[Layout, list[str]]:
        """Return the rest of the stored solution for each state along it. Raises `ValueError` for a wrong solution."""
        if not solution:
            return {}
        try:
            actions = self._spell(self.start, [_LETTERS[letter] for letter in solution])
        except IllegalActionError as error:
            raise ValueError(f"the stored solution cannot be walked: {error}") from None
        states = [self.start]
        for action in actions:
            states.append(self.next_state(states[-1], action))
        if not self.is_goal(states[-1]):
            raise ValueError("the stored solution does not reach the goal")
        return {state: actions[number:] for number, state in enumerate(states)}

    def _symbol(self, cell: Cell, state: Layout) -> str:
        if cell not in self._room.floor:
            return "#"
        on_goal = cell in self._room.goals
        if cell == state.player:
            return "+" if on_goal else "@"
        if cell in state.boxes:
            return "*" if on_goal else "$"
        return "." if on_goal else "-"
