"""Find shortest solutions of Sokoban, by A* over pushes."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import NamedTuple

from rollmill.environments.stateful.cells import DIRECTIONS, Cell, beside

Boxes = frozenset[Cell]
SEARCH_LIMIT = 60_000
"""Most states after pushes that a search expands, which takes some seconds."""


class Room:
    """The immutable parts of a puzzle: floor, goals, size."""

    def __init__(self, floor: frozenset[Cell], goals: frozenset[Cell], size: Cell | None = None) -> None:
        """Set up the room: `floor` is all cells but walls, `size` rows and columns (None if walls enclose it)."""
        self.floor = floor
        self.goals = goals
        self.size = size or (max(r for r, _ in floor) + 2, max(c for _, c in floor) + 2)
        self._pushes = {goal: self._pushes_to(goal) for goal in sorted(goals)}
        reaching = frozenset().union(*self._pushes.values())
        self.nearest = {cell: min(to[cell] for to in self._pushes.values() if cell in to) for cell in reaching}
        """Pushes to the nearest goal, by cell; from any other cell a box cannot reach a goal."""
        self.around = {
            cell: [(d, neighbour, beside(neighbour, d)) for d in DIRECTIONS if (neighbour := beside(cell, d)) in floor]
            for cell in floor
        }
        """By cell: direction, next cell and the cell behind that, for each direction without a wall."""

    def least_pushes(self, boxes: Boxes) -> int | None:
        """Return the fewest pushes of all boxes, each treated as alone, to distinct goals; None if impossible.

        An assignment problem, solved by dynamic programming over sets of occupied goals.
        """
        table: dict[int, int] = {0: 0}  # bit mask of occupied goals -> pushes
        for box in sorted(boxes):
            longer: dict[int, int] = {}
            for taken, pushes in table.items():
                for number, to in enumerate(self._pushes.values()):
                    if taken >> number & 1 or box not in to:
                        continue
                    mask = taken | 1 << number
                    longer[mask] = min(longer.get(mask, pushes + to[box]), pushes + to[box])
            table = longer
        return min(table.values(), default=None)

    def _pushes_to(self, goal: Cell) -> dict[Cell, int]:
        """Return the pushes that bring a box from each cell to the goal, by a backward search that pulls the box."""
        pushes = {goal: 0}
        queue = deque([goal])
        while queue:
            cell = queue.popleft()
            for direction in DIRECTIONS:
                # To pull the box one cell, the player needs a free cell behind that one.
                before, player = beside(cell, direction), beside(cell, direction, 2)
                if before in self.floor and player in self.floor and before not in pushes:
                    pushes[before] = pushes[cell] + 1
                    queue.append(before)
        return pushes


def solve(room: Room, player: Cell, boxes: Boxes, limit: int = SEARCH_LIMIT) -> list[str] | None:
    """Return the fewest directions that solve the puzzle; None if there are none, or beyond `limit` states.

    A* (Hart, Nilsson, Raphael 1968) over states after a push. The heuristic, the sum of every box's pushes to its
    nearest goal, never overestimates the steps left.

    Args:
        room: Floor and goals.
        player: Cell of the player.
        boxes: Cells of the boxes.
        limit: Maximum number of states to expand.
    """
    start = (player, boxes)
    best = {start: 0}
    came: dict[_State, _Push] = {}
    number = count()  # breaks ties in the heap, since states are not ordered
    queue = [(sum(room.nearest[box] for box in boxes), next(number), start)] if boxes <= room.nearest.keys() else []
    closed: set[_State] = set()
    while queue and len(closed) < limit:
        _, _, state = heapq.heappop(queue)
        if state in closed:
            continue  # a longer way to a state that was expanded already
        if state[1] == room.goals:
            return _retrace(room, came, state)
        closed.add(state)
        estimate = sum(room.nearest[box] for box in state[1])
        # Walking is free of choices that matter: only pushes make new states, each after a shortest walk.
        walks = _walk(room, *state)
        for position, (steps, _) in walks.items():
            for direction, box, behind in room.around[position]:
                # A cell without a way to any goal is a dead end for a box.
                if box not in state[1] or behind not in room.nearest or behind in state[1]:
                    continue
                after = (box, state[1] - {box} | {behind})
                total = best[state] + steps + 1
                if total < best.get(after, total + 1):
                    best[after] = total
                    came[after] = _Push(state, position, direction)
                    left = estimate - room.nearest[box] + room.nearest[behind]  # only one box has moved
                    heapq.heappush(queue, (total + left, next(number), after))
    return None


_State = tuple[Cell, Boxes]
"""Cells of the player and the boxes."""


class _Push(NamedTuple):
    """The push by which the search reached a state."""

    before: _State
    position: Cell
    """Cell from which the player pushed."""
    direction: str


_Walk = dict[Cell, tuple[int, tuple[Cell, str] | None]]
"""For each cell that the player can reach: number of steps, and the previous cell with the direction from it."""


def _walk(room: Room, player: Cell, boxes: Boxes) -> _Walk:
    reached: _Walk = {player: (0, None)}
    queue = deque([player])
    while queue:
        current = queue.popleft()
        steps = reached[current][0] + 1
        for direction, neighbour, _ in room.around[current]:
            if neighbour not in reached and neighbour not in boxes:
                reached[neighbour] = (steps, (current, direction))
                queue.append(neighbour)
    return reached


def _retrace(room: Room, came: dict[_State, _Push], state: _State) -> list[str]:
    steps: list[str] = []
    while state in came:
        # Backwards: the push, then the walk that led to it.
        state, position, direction = came[state]
        steps.append(direction)
        reached = _walk(room, *state)
        while (leg := reached[position][1]) is not None:
            position, direction = leg
            steps.append(direction)
    return steps[::-1]
