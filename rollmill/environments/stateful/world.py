"""Interface of worlds: a puzzle with a start, actions, a goal, and a solver."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

from rollmill.environments.stateful.pictures import Picture

Difficulty = Literal["easy", "medium", "hard"]
StateT = TypeVar("StateT", bound=Hashable)


class IllegalActionError(Exception):
    """Raised for an action that the rules do not allow in a state, with the reason."""


class World(Protocol[StateT]):
    """A puzzle. States are immutable values: no method changes one."""

    name: ClassVar[str]
    rules: ClassVar[str]
    """Description of all actions, for a prompt."""
    symbols: ClassVar[str]
    """Meaning of the characters of `render`; a picture has its own legend."""
    example: ClassVar[tuple[str, ...]]
    """Example actions, for a prompt."""
    start: StateT

    @classmethod
    def generate(cls, rng: random.Random, difficulty: Difficulty) -> Self:
        """Generate a solvable puzzle: the solver has found a solution."""
        ...

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `dump` returned; the state passed to `dump` becomes `start`. Raises `ValueError` if malformed."""
        ...

    def dump(self, state: StateT) -> dict[str, Any]:
        """Return the puzzle in a state as a JSON-serialisable dict."""
        ...

    @property
    def goal(self) -> str:
        """Return the description of the goal for a prompt."""
        ...

    def read_action(self, text: str) -> str | None:
        """Parse an action to its canonical spelling; None if no state of this world allows such an action."""
        ...

    def legal_actions(self, state: StateT) -> list[str]:
        """Return the actions that the rules allow, always in the same order."""
        ...

    def next_state(self, state: StateT, action: str) -> StateT:
        """Return the state after an action, spelled as by `read_action`. Raises `IllegalActionError`."""
        ...

    def is_goal(self, state: StateT) -> bool:
        """Return whether the puzzle is solved."""
        ...

    def distance_bound(self, state: StateT) -> int | None:
        """Return a lower bound of the number of actions to the goal, 0 only for a goal state; None if unreachable."""
        ...

    def plan(self, state: StateT) -> list[str] | None:
        """Return actions that lead to the goal; None if there are none, or the solver gave up.

        Callers need not tell the two apart: in both cases there is nothing to demonstrate.
        """
        ...

    def render(self, state: StateT) -> str:
        """Return the state as text for a prompt; `symbols` explains its characters."""
        ...

    def picture(self, state: StateT) -> Picture:
        """Return the description of the state's image, for `draw`."""
        ...
