"""State that the agents of one stateful episode share, and the actions applied to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rollmill.environments.stateful.world import IllegalActionError, World
from rollmill.verifiers.answer_tag import quote


class ActionsOutcome(NamedTuple):
    """The outcome of a list of actions."""

    state: Any
    done: list[str]
    invalid: str | None
    """Text of the first invalid action; the actions after it are not applied."""
    fault: str | None
    """Reason why the action is invalid."""
    left: int
    """Number of actions after the invalid one or the goal, which were not applied."""


class Game:
    """A world and its current state."""

    def __init__(self, world: World[Any], shortest: int | None) -> None:
        """Start the game; `shortest` is the number of actions of the shortest solution, None if it is unknown."""
        self.world = world
        self.shortest = shortest
        self.state = world.start
        self.used = 0
        """Number of actions done."""
        self.plan: str | None = None
        """The planner's plan of this turn."""
        self.report: str | None = None
        """The outcome of the last actions, for a prompt."""
        self._distances: dict[Any, int | None] = {}

    @property
    def solved(self) -> bool:
        """Return whether the goal is reached."""
        return self.world.is_goal(self.state)

    @property
    def distance(self) -> int | None:
        """See `World.distance_bound`."""
        return self.distance_of(self.state)

    def distance_of(self, state: Any) -> int | None:
        """Return `World.distance_bound` of a state, cached."""
        if state not in self._distances:
            self._distances[state] = self.world.distance_bound(state)
        return self._distances[state]

    def try_actions(self, actions: Sequence[str]) -> ActionsOutcome:
        """Apply the actions to a copy of the state, up to the first invalid one, or to the goal."""
        state, done = self.state, list[str]()
        for number, text in enumerate(actions):
            # Actions after the goal would only cost reward, or leave the goal again.
            if self.world.is_goal(state):
                return ActionsOutcome(state, done, None, None, len(actions) - number)
            action = self.world.read_action(text)
            try:
                if action is None:
                    raise IllegalActionError("it is no action")
                state = self.world.next_state(state, action)
            except IllegalActionError as error:
                return ActionsOutcome(state, done, text, str(error), len(actions) - number - 1)
            done.append(action)
        return ActionsOutcome(state, done, None, None, 0)

    def perform(self, actions: Sequence[str]) -> ActionsOutcome:
        """Apply the actions to the state."""
        outcome = self.try_actions(actions)
        self.state = outcome.state
        self.used += len(outcome.done)
        message = f"Done: {', '.join(outcome.done) or 'nothing'}."
        if outcome.invalid is not None:
            message += f" Then {quote(outcome.invalid)} was invalid: {outcome.fault}. Nothing after it was done."
        self.report = message
        return outcome
