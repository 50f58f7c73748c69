"""The fewest moves from one arrangement of blocks to another, by A*."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

Stacks = tuple[tuple[str, ...], ...]
"""Each from its lowest block up; sorted."""


class Move(NamedTuple):
    """One block moved from its stack to another place."""

    block: str
    below: str | None
    """What it stood on; None for the table, and for the hand."""
    onto: str | None
    """What it is put on; None for the table."""


def arranged(stacks: Iterable[tuple[str, ...]]) -> Stacks:
    """Return the stacks sorted and without empty ones, so that equal arrangements are equal."""
    return tuple(sorted(stack for stack in stacks if stack))


def fewest_moves(stacks: Stacks, goal: Stacks, held: str | None = None) -> list[Move]:
    """Return a shortest sequence of moves; the first one puts down the block in the hand, where there is one.

    A* (Hart, Nilsson, Raphael 1968). Every block that is not in its final position moves at least once, and twice
    where it is above a block that it must be above at the end. A move to a final position is always optimal, and every
    other move may as well go to the table (Gupta and Nau, "On the complexity of blocks-world planning", 1992).
    """
    beneath = {block: stack[:level] for stack in goal for level, block in enumerate(stack)}
    number = count()
    queue: list[tuple[int, int, Stacks, list[Move]]] = []
    if held is None:
        queue.append((_estimate(stacks, beneath), next(number), stacks, []))
    else:
        put = _finally(stacks, held, None, beneath) or _on_table(stacks, held, None)
        queue.append((0, next(number), put[1], [put[0]]))
    closed = set()
    while True:
        _, _, here, moves = heapq.heappop(queue)
        if here == goal:
            return moves
        if here in closed:
            continue
        closed.add(here)
        for move, after in _moves(here, beneath):
            if after not in closed:
                estimate = len(moves) + 1 + _estimate(after, beneath)
                heapq.heappush(queue, (estimate, next(number), after, [*moves, move]))


_Beneath = dict[str, tuple[str, ...]]
"""What each block is to have beneath it, lowest first."""


def _moves(stacks: Stacks, beneath: _Beneath) -> list[tuple[Move, Stacks]]:
    """Return one move to a final position where there is one, else every useful move to the table."""
    to_table = []
    for stack in stacks:
        block = stack[-1]
        if stack[:-1] == beneath[block]:
            continue
        rest = arranged(other[:-1] if other == stack else other for other in stacks)
        below = stack[-2] if len(stack) > 1 else None
        if final := _finally(rest, block, below, beneath):
            return [final]
        if below:
            to_table.append(_on_table(rest, block, below))
    return to_table


def _finally(stacks: Stacks, block: str, below: str | None, beneath: _Beneath) -> tuple[Move, Stacks] | None:
    """Return the move of a block to its final position; None where that position is not ready.

    Args:
        stacks: The stacks, without empty ones.
        block: The block to move.
        below: The block under it now; None on the table.
        beneath: For each block, the block under it in the goal.
    """
    wanted = beneath[block]
    if not wanted:
        return _on_table(stacks, block, below)
    if wanted not in stacks:
        return None
    after = arranged((*stack, block) if stack == wanted else stack for stack in stacks)
    return Move(block, below, wanted[-1]), after


def _on_table(stacks: Stacks, block: str, below: str | None) -> tuple[Move, Stacks]:
    return Move(block, below, None), arranged([*stacks, (block,)])


def _estimate(stacks: Stacks, beneath: _Beneath) -> int:
    moves = 0
    for stack in stacks:
        for level, block in enumerate(stack):
            if stack[:level] != beneath[block]:
                moves += 2 if set(beneath[block]) & set(stack[:level]) else 1
    return moves
