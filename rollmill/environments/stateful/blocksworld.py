"""Blocksworld: rearrange stacks of blocks with one hand, by PDDL's four operators."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar, NamedTuple, Self

from rollmill.environments.stateful.blocksworld_solver import Stacks, arrange, fewest_moves
from rollmill.environments.stateful.pictures import BROWN, WHITE, Picture, Tile
from rollmill.environments.stateful.world import Difficulty, IllegalActionError

_ACTION = re.compile(r"(pick up|put down) ([A-Z])|(stack) ([A-Z]) on ([A-Z])|(unstack) ([A-Z]) from ([A-Z])")
_KINDS: dict[Difficulty, tuple[int, int]] = {"easy": (6, 8), "medium": (7, 12), "hard": (9, 18)}
"""Number of blocks, and least number of actions of the shortest plan."""
_MOST = 12


class Blocks(NamedTuple):
    """A state: the sorted stacks, each from its lowest block up, and the block in the hand."""

    stacks: Stacks
    in_hand: str | None = None


class Blocksworld:
    """A blocksworld puzzle.

    Stored as `{"stacks": [["A", "B"], ...], "held": null, "goal": [["B", "A"], ...]}`, every stack from its lowest
    block up; blocks are letters, 12 at most. `easy` has 6 blocks and a shortest plan of at least 8 actions, `medium` 7
    and 12, `hard` 9 and 18.
    """

    name: ClassVar[str] = "blocksworld"
    rules: ClassVar[str] = (
        'You move blocks with one hand. "pick up A" takes A from the table, "unstack A from B" takes A from B; both '
        'need an empty hand and nothing on A. "put down A" puts the A in your hand on the table, "stack A on B" puts '
        "it on B, which needs nothing on B."
    )
    symbols: ClassVar[str] = "every line is a stack, its lowest block first"
    example: ClassVar[tuple[str, ...]] = ("unstack A from B", "put down A", "pick up B", "stack B on C")

    def __init__(self, start: Blocks, goal_stacks: Stacks) -> None:
        """Set up the puzzle. Raises `ValueError` if start and goal do not have the same blocks, each once."""
        blocks = sorted([*chain(*start.stacks), *([start.in_hand] if start.in_hand else [])])
        if len(set(blocks)) != len(blocks) or blocks != sorted(chain(*goal_stacks)):
            raise ValueError("the start and the goal do not have the same blocks, each once")
        self.start = start
        self._goal = goal_stacks

    @classmethod
    def generate(cls, rng: random.Random, difficulty: Difficulty) -> Self:
        """See `World`."""
        count, at_least = _KINDS[difficulty]
        while True:
            world = cls(Blocks(_random_stacks(rng, count)), _random_stacks(rng, count))
            if len(world.plan(world.start)) >= at_least:
                return world

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Self:
        """See `World`."""
        in_hand = stored.get("held")
        if in_hand is not None and not _is_block(in_hand):
            raise ValueError("held is neither null nor a letter")
        return cls(Blocks(_read_stacks(stored, "stacks"), in_hand), _read_stacks(stored, "goal"))

    def dump(self, state: Blocks) -> dict[str, Any]:
        """See `World`."""
        return {"stacks": [*map(list, state.stacks)], "held": state.in_hand, "goal": [*map(list, self._goal)]}

    @property
    def goal(self) -> str:
        """See `World`."""
        return f"The stacks are exactly these, in any order, and the hand is empty:\n{_lines(self._goal)}"

    def read_action(self, text: str) -> str | None:
        """See `World`."""
        *words, last = " ".join(text.split()).lower().split(" ")
        # Blocks are upper case: the last word, and in "stack A on B" also the second.
        if len(words) == 3:
            words[1] = words[1].upper()
        action = " ".join([*words, last.upper()])
        return action if _ACTION.fullmatch(action) else None

    def legal_actions(self, state: Blocks) -> list[str]:
        """See `World`."""
        if state.in_hand:
            return [f"put down {state.in_hand}"] + [f"stack {state.in_hand} on {stack[-1]}" for stack in state.stacks]
        return [
            f"pick up {stack[0]}" if len(stack) == 1 else f"unstack {stack[-1]} from {stack[-2]}"
            for stack in state.stacks
        ]

    def next_state(self, state: Blocks, action: str) -> Blocks:
        """See `World`."""
        if fault := self._fault(state, action):
            raise IllegalActionError(fault)
        verb, block, other = _read(action)
        if verb in ("pick up", "unstack"):
            return Blocks(arrange(s[:-1] if s[-1] == block else s for s in state.stacks), block)
        if verb == "put down":
            return Blocks(arrange([*state.stacks, (block,)]))
        return Blocks(arrange((*s, block) if s[-1] == other else s for s in state.stacks))

    def is_goal(self, state: Blocks) -> bool:
        """See `World`."""
        return state == Blocks(self._goal)

    def distance_bound(self, state: Blocks) -> int:
        """Return the number of actions of the shortest plan."""
        return len(self.plan(state))

    def plan(self, state: Blocks) -> list[str]:
        """Return a shortest plan."""
        actions: list[str] = []
        for block, below, onto in fewest_moves(state.stacks, self._goal, state.in_hand):
            if block != state.in_hand or actions:
                actions.append(f"unstack {block} from {below}" if below else f"pick up {block}")
            actions.append(f"stack {block} on {onto}" if onto else f"put down {block}")
        return actions

    def render(self, state: Blocks) -> str:
        """See `World`."""
        hand = f"In the hand: {state.in_hand}" if state.in_hand else "The hand is empty."
        return f"{_lines(state.stacks)}\n{hand}" if state.stacks else hand

    def picture(self, state: Blocks) -> Picture:
        """Return the stacks side by side, and the hand in a column of its own on the right, at the top."""
        height = max([len(stack) for stack in state.stacks], default=0) + 1
        columns = [[*stack, *[""] * (height - len(stack))] for stack in state.stacks]
        columns += [[""] * height, [*[""] * (height - 1), state.in_hand or ""]]
        rows = [[_tile(column[level]) for column in columns] for level in reversed(range(height))]
        return Picture(rows, [(_tile("A"), "a block; the one at the top right is in the hand")])

    def _fault(self, state: Blocks, action: str) -> str | None:
        verb, block, other = _read(action)
        tops = {stack[-1]: stack for stack in state.stacks}
        if verb in ("put down", "stack"):
            if block != state.in_hand:
                return f"{block} is not in the hand"
            return f"{other} is covered, or there is none" if other and other not in tops else None
        if state.in_hand:
            return f"the hand holds {state.in_hand}"
        if block not in tops:
            return f"{block} is covered, or there is none"
        below = tops[block][-2] if len(tops[block]) > 1 else None
        if below == other:
            return None
        return f"{block} stands on {below}" if below else f"{block} stands on the table"


def _read(action: str) -> tuple[str, str, str | None]:
    match = _ACTION.fullmatch(action)
    assert match, action
    verb, block, *other = (group for group in match.groups() if group)
    return verb, block, other[0] if other else None


def _is_block(value: object) -> bool:
    return isinstance(value, str) and len(value) == 1 and "A" <= value <= "Z"


def _read_stacks(stored: Mapping[str, Any], key: str) -> Stacks:
    stacks = stored.get(key)
    if not isinstance(stacks, list) or not all(
        isinstance(stack, list) and stack and all(map(_is_block, stack)) for stack in stacks
    ):
        raise ValueError(f"{key} is not a list of stacks of letters from A to Z")
    if sum(map(len, stacks)) > _MOST:
        raise ValueError(f"{key} has more than {_MOST} blocks")
    return arrange(map(tuple, stacks))


def _random_stacks(rng: random.Random, count: int) -> Stacks:
    stacks: list[tuple[str, ...]] = []
    for block in rng.sample([chr(ord("A") + number) for number in range(count)], count):
        index = rng.randrange(len(stacks) + 1)
        if index == len(stacks):
            stacks.append((block,))
        else:
            stacks[index] = (*stacks[index], block)
    return arrange(stacks)


def _lines(stacks: Stacks) -> str:
    return "\n".join(f"table: {' '.join(stack)}" for stack in stacks)


def _tile(block: str) -> Tile:
    return Tile(WHITE, "box", BROWN, block) if block else Tile(WHITE)
