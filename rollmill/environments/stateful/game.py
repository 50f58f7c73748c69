"""One episode's world: the state that all agents share, and what has been done to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rollmill.environments.stateful.world import IllegalActionError, World
from rollmill.verifiers.answer_tag import shown


class ActionsOutcome(NamedTuple):
    """What became of a list of actions."""

    state: Any
    done: list[str]
    invalid: str | None
    """The first one that was not valid, as it was written; nothing after it is done."""
    fault: str | None
    """Why it was not."""
    left: int
    """Actions that were not looked at."""


class Game:
    """A world and the state that it is in."""

    def __init__(self, world: World[Any], shortest: int | None) -> None:
        """`shortest`: actions of the shortest way from the start; None where it is not known."""
        self.world = world
        self.shortest = shortest
        self.state = world.start
        self.used = 0
        """Actions done."""
        self.plan: str | None = None
        """What the planner said this turn."""
        self.report: str | None = None
        """What became of the last actions, for a prompt."""
        self._distances: dict[Any, int | None] = {}

    @property
    def solved(self) -> bool:
        """Whether the goal is reached."""
        return self.world.is_goal(self.state)

    @property
    def distance(self) -> int | None:
        """See `World.distance`."""
        return self.distance_of(self.state)

    def distance_of(self, state: Any) -> int | None:
        """See `World.distance`; solved for once."""
        if state not in self._distances:
            self._distances[state] = self.world.distance(state)
        return self._distances[state]

    def try_actions(self, actions: Sequence[str]) -> ActionsOutcome:
        """Does them on a copy of the state, up to an invalid one, or to the goal."""
        state, done = self.state, list[str]()
        for number, text in enumerate(actions):
            if self.world.is_goal(state):
                return ActionsOutcome(state, done, None, None, len(actions) - number)
            action = self.world.read_action(text)
            try:
                if action is None:
                    raise IllegalActionError("it is no action")
                state = self.world.after(state, action)
            except IllegalActionError as error:
                return ActionsOutcome(state, done, text, str(error), len(actions) - number - 1)
            done.append(action)
        return ActionsOutcome(state, done, None, None, 0)

    def perform(self, actions: Sequence[str]) -> ActionsOutcome:
        """Does them."""
        outcome = self.try_actions(actions)
        self.state = outcome.state
        self.used += len(outcome.done)
        said = f"Done: {', '.join(outcome.done) or 'nothing'}."
        if outcome.invalid is not None:
            said += f" Then {shown(outcome.invalid)} was invalid: {outcome.fault}. Nothing after it was done."
        self.report = said
        return outcome
