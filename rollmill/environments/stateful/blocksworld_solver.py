"""Find the fewest moves from one arrangement of blocks to another, by A*."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

Stacks = tuple[tuple[str, ...], ...]
"""Sorted stacks, each from its lowest block up."""


class Move(NamedTuple):
    """Move of one block to another stack or to the table."""

    block: str
    below: str | None
    """Block under it before the move; None for the table and the hand."""
    onto: str | None
    """Block under it after the move; None for the table."""


def arrange(stacks: Iterable[tuple[str, ...]]) -> Stacks:
    """Return the stacks in canonical form: sorted and without empty ones."""
    return tuple(sorted(stack for stack in stacks if stack))


def fewest_moves(stacks: Stacks, goal: Stacks, in_hand: str | None = None) -> list[Move]:
    """Return a shortest sequence of moves; the first one puts down the block in the hand, if there is one.

    A* (Hart, Nilsson, Raphael 1968). Heuristic: every block that is not in its final position moves at least once, and
    twice if it is above a block that it must be above in the goal. A move to a final position is always optimal, and
    every other move may go to the table (Gupta and Nau, "On the complexity of blocks-world planning", 1992).
    """
    beneath = {block: stack[:level] for stack in goal for level, block in enumerate(stack)}
    number = count()  # breaks ties in the heap
    queue: list[tuple[int, int, Stacks, list[Move]]] = []
    if in_hand is None:
        queue.append((_estimate(stacks, beneath), next(number), stacks, []))
    else:
        first = _finally(stacks, in_hand, None, beneath) or _on_table(stacks, in_hand, None)
        queue.append((0, next(number), first[1], [first[0]]))
    closed = set()
    while True:
        _, _, state, moves = heapq.heappop(queue)
        if state == goal:
            return moves
        if state in closed:
            continue
        closed.add(state)
        for move, after in _moves(state, beneath):
            if after not in closed:
                estimate = len(moves) + 1 + _estimate(after, beneath)
                heapq.heappush(queue, (estimate, next(number), after, [*moves, move]))


_Beneath = dict[str, tuple[str, ...]]
"""Blocks beneath each block in the goal, lowest first."""


def _moves(stacks: Stacks, beneath: _Beneath) -> list[tuple[Move, Stacks]]:
    """Return one move to a final position if there is one, else all moves of misplaced blocks to the table."""
    to_table = []
    for stack in stacks:
        block = stack[-1]
        if stack[:-1] == beneath[block]:
            continue  # in its final position, together with all blocks beneath it
        rest = arrange(other[:-1] if other == stack else other for other in stacks)
        below = stack[-2] if len(stack) > 1 else None
        if final := _finally(rest, block, below, beneath):
            return [final]
        # A block that is already on the table gains nothing by a move to the table.
        if below:
            to_table.append(_on_table(rest, block, below))
    return to_table


def _finally(stacks: Stacks, block: str, below: str | None, beneath: _Beneath) -> tuple[Move, Stacks] | None:
    """Return the move of a block to its final position and the stacks after it; None if that is not yet possible.

    Args:
        stacks: The stacks, without empty ones.
        block: The block to move.
        below: The block under it now; None on the table.
        beneath: For each block, the blocks beneath it in the goal.
    """
    goal_below = beneath[block]
    if not goal_below:
        return _on_table(stacks, block, below)
    if goal_below not in stacks:
        return None
    after = arrange((*stack, block) if stack == goal_below else stack for stack in stacks)
    return Move(block, below, goal_below[-1]), after


def _on_table(stacks: Stacks, block: str, below: str | None) -> tuple[Move, Stacks]:
    return Move(block, below, None), arrange([*stacks, (block,)])


def _estimate(stacks: Stacks, beneath: _Beneath) -> int:
    """Return a lower bound of the number of moves; see `fewest_moves`."""
    moves = 0
    for stack in stacks:
        for level, block in enumerate(stack):
            if stack[:level] != beneath[block]:
                moves += 2 if set(beneath[block]) & set(stack[:level]) else 1
    return moves
