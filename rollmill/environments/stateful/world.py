"""What a world is: one puzzle with a start, actions, a goal, and a solver that knows the way there."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

from rollmill.environments.stateful.pictures import Picture

Difficulty = Literal["easy", "medium", "hard"]
StateT = TypeVar("StateT", bound=Hashable)


class IllegalActionError(Exception):
    """An action that the rules do not allow in a state; says why."""


class World(Protocol[StateT]):
    """One puzzle. States are values: nothing here changes one."""

    name: ClassVar[str]
    rules: ClassVar[str]
    """All actions and what they do, for a prompt."""
    symbols: ClassVar[str]
    """What the characters of `render` mean; a picture has a legend of its own."""
    example: ClassVar[tuple[str, ...]]
    """A few actions, to show their form."""
    start: StateT

    @classmethod
    def generate(cls, rng: random.Random, difficulty: Difficulty) -> Self:
        """A new puzzle, solved once by the solver: so there is a way to the goal."""
        ...

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Self:
        """The puzzle that `dump` wrote, starting where it was. Raises `ValueError` for what is no such puzzle."""
        ...

    def dump(self, state: StateT) -> dict[str, Any]:
        """The puzzle in a state, as JSON."""
        ...

    @property
    def goal(self) -> str:
        """When the puzzle is solved, for a prompt."""
        ...

    def read_action(self, text: str) -> str | None:
        """An action in its one spelling; None for what is no action of this world in any state."""
        ...

    def legal_actions(self, state: StateT) -> list[str]:
        """Those that the rules allow, always in the same order."""
        ...

    def after(self, state: StateT, action: str) -> StateT:
        """The state that follows. `action` as `read_action` spells it. Raises `IllegalActionError`."""
        ...

    def is_goal(self, state: StateT) -> bool:
        """Whether the puzzle is solved."""
        ...

    def distance(self, state: StateT) -> int | None:
        """At least how many actions from the goal, 0 exactly there; None where it is out of reach for good."""
        ...

    def plan(self, state: StateT) -> list[str] | None:
        """Actions that lead to the goal; None where there are none, or none was found."""
        ...

    def render(self, state: StateT) -> str:
        """The state as text."""
        ...

    def picture(self, state: StateT) -> Picture:
        """The state as a board to draw."""
        ...
