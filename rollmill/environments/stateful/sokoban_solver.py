"""The shortest solutions of Sokoban, by A* over pushes."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import NamedTuple

from rollmill.environments.stateful.cells import DIRECTIONS, Cell, beside

Boxes = frozenset[Cell]
SEARCH_LIMIT = 60_000
"""States after pushes that a search looks at before it gives up: some seconds."""


class Room:
    """What of a puzzle stays as it is."""

    def __init__(self, floor: frozenset[Cell], goals: frozenset[Cell], size: Cell | None = None) -> None:
        """`floor`: all cells but walls. `size`: rows and columns; None where a wall surrounds the floor."""
        self.floor = floor
        self.goals = goals
        self.size = size or (max(r for r, _ in floor) + 2, max(c for _, c in floor) + 2)
        self._pushes = {goal: self._pushes_to(goal) for goal in sorted(goals)}
        reaching = frozenset().union(*self._pushes.values())
        self.nearest = {cell: min(to[cell] for to in self._pushes.values() if cell in to) for cell in reaching}
        """Pushes to the nearest goal, by cell; a box elsewhere is stuck for good."""
        self.around = {
            cell: [(d, there, beside(there, d)) for d in DIRECTIONS if (there := beside(cell, d)) in floor]
            for cell in floor
        }
        """By cell: the ways on, each with the next cell and the one behind it."""

    def least_pushes(self, boxes: Boxes) -> int | None:
        """The least pushes of all boxes, each to a goal of its own, as if alone; None where there is no way."""
        table: dict[int, int] = {0: 0}
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
        """Pushes that bring a box to the goal, by cell: a search that pulls it away."""
        pushes = {goal: 0}
        queue = deque([goal])
        while queue:
            cell = queue.popleft()
            for direction in DIRECTIONS:
                before, player = beside(cell, direction), beside(cell, direction, 2)
                if before in self.floor and player in self.floor and before not in pushes:
                    pushes[before] = pushes[cell] + 1
                    queue.append(before)
        return pushes


def solve(room: Room, player: Cell, boxes: Boxes, limit: int = SEARCH_LIMIT) -> list[str] | None:
    """Directions of the player that solve the puzzle, as few as can be; None where there are none, or past `limit`.

    A* (Hart, Nilsson, Raphael 1968) over states after a push. The estimate, the sum of every box's pushes to its
    nearest goal, is never more than the steps that are left.
    """
    start = (player, boxes)
    best = {start: 0}
    came: dict[_State, _Push] = {}
    number = count()
    queue = [(sum(room.nearest[box] for box in boxes), next(number), start)] if boxes <= room.nearest.keys() else []
    closed: set[_State] = set()
    while queue and len(closed) < limit:
        _, _, state = heapq.heappop(queue)
        if state in closed:
            continue
        if state[1] == room.goals:
            return _retrace(room, came, state)
        closed.add(state)
        estimate = sum(room.nearest[box] for box in state[1])
        walks = _walk(room, *state)
        for here, (steps, _) in walks.items():
            for direction, box, behind in room.around[here]:
                if box not in state[1] or behind not in room.nearest or behind in state[1]:
                    continue
                after = (box, state[1] - {box} | {behind})
                total = best[state] + steps + 1
                if total < best.get(after, total + 1):
                    best[after] = total
                    came[after] = _Push(state, here, direction)
                    left = estimate - room.nearest[box] + room.nearest[behind]
                    heapq.heappush(queue, (total + left, next(number), after))
    return None


_State = tuple[Cell, Boxes]
"""Player and boxes."""


class _Push(NamedTuple):
    before: _State
    here: Cell
    """Where the player pushed from."""
    direction: str


_Walk = dict[Cell, tuple[int, tuple[Cell, str] | None]]
"""By cell that the player can reach: steps, and the cell and direction that lead there."""


def _walk(room: Room, player: Cell, boxes: Boxes) -> _Walk:
    reached: _Walk = {player: (0, None)}
    queue = deque([player])
    while queue:
        here = queue.popleft()
        steps = reached[here][0] + 1
        for direction, there, _ in room.around[here]:
            if there not in reached and there not in boxes:
                reached[there] = (steps, (here, direction))
                queue.append(there)
    return reached


def _retrace(room: Room, came: dict[_State, _Push], state: _State) -> list[str]:
    steps: list[str] = []
    while state in came:
        state, here, direction = came[state]
        steps.append(direction)
        reached = _walk(room, *state)
        while (leg := reached[here][1]) is not None:
            here, direction = leg
            steps.append(direction)
    return steps[::-1]
