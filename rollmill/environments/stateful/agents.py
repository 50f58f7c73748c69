"""Agents of the stateful environment: one plans, one acts."""

from __future__ import annotations

import random
import re
from typing import Any

import orjson

from rollmill.environments.environment import Step
from rollmill.environments.parsing import all_tagged
from rollmill.environments.stateful.game import Game
from rollmill.environments.stateful.pictures import draw
from rollmill.environments.stateful.settings import StatefulSettings
from rollmill.records import Message
from rollmill.verifiers.answer_tag import quote

_LONGEST_PLAN = 2000
"""Most characters of a plan in the tool caller's prompt."""
_PLAN_PARTS = re.compile(r"[,;\n]")
_NUMBERING = re.compile(r"^(?:[-*]|\d+[.)])\s+")


class Planner:
    """Writes a plan, which does not change the state."""

    def __init__(self, game: Game, settings: StatefulSettings) -> None:
        self._game = game
        self._settings = settings

    def prompt(self) -> list[Message]:
        """See `Agent`."""
        example = ", ".join(self._game.world.example)
        system = (
            f"{_described(self._game, self._settings)}\n\nYou plan, and another one acts on your plan. Write a short "
            "plan: the actions in their order, with commas between them. Put it between <plan> and </plan>, like this:"
            f"\n<plan>{example}</plan>"
        )
        return _messages(system, self._game, self._settings, [])

    def act(self, completion: str) -> Step:
        """See `Agent`."""
        game = self._game
        plans = all_tagged(completion, "plan")
        game.plan = plans[-1][:_LONGEST_PLAN] if plans else None
        if game.plan is None:
            return Step(-self._settings.malformed_penalty, {"malformed": "there is no <plan>...</plan> with a plan"})
        outcome = game.try_actions(self._actions(game.plan)[: self._settings.max_actions])
        now, then = game.distance, game.distance_of(outcome.state)
        info = {"tried": outcome.done, "fault": outcome.fault, "distance": now, "distance_after_plan": then}
        if not now:
            return Step(0.0, info)
        # None is a dead end; a plan that leads far away is no worse than that.
        progress = -1.0 if then is None else max(-1.0, (now - then) / now)
        return Step(self._settings.plan_reward * progress, info)

    def oracle(self) -> str:
        """Return the solver's plan."""
        plan = _solution(self._game) or self._game.world.legal_actions(self._game.state)[:1]
        return f"<plan>{', '.join(plan[: self._settings.max_actions])}</plan>"

    def random(self, rng: random.Random) -> str:
        """Return a random walk of legal actions."""
        return f"<plan>{', '.join(_walk(self._game, self._settings, rng))}</plan>"

    def _actions(self, plan: str) -> list[str]:
        """Return the parts of a plan that are actions of the world; other parts are comments."""
        parts = (_NUMBERING.sub("", part.strip()).strip(" .") for part in _PLAN_PARTS.split(plan))
        return [part for part in parts if self._game.world.read_action(part) is not None]


class ToolCaller:
    """Applies actions to the state."""

    def __init__(self, game: Game, settings: StatefulSettings, *, planned: bool) -> None:
        """Store the game and its settings; `planned` tells whether the episode has a planner."""
        self._game = game
        self._settings = settings
        self._planned = planned

    def prompt(self) -> list[Message]:
        """See `Agent`."""
        example = orjson.dumps(self._game.world.example).decode()
        system = (
            f"{_described(self._game, self._settings)}\n\nYou act. Answer with a JSON list of at most "
            f"{self._settings.max_actions} actions, in their order, between <actions> and </actions>, like this:\n"
            f"<actions>{example}</actions>\nNothing after an invalid action is done."
        )
        plan = [f"The plan: {self._game.plan or 'there is none.'}"] if self._planned else []
        return _messages(system, self._game, self._settings, plan)

    def act(self, completion: str) -> Step:
        """See `Agent`."""
        lists = [parsed for text in all_tagged(completion, "actions") if (parsed := _read_list(text))]
        if not lists:
            fault = "there is no <actions>...</actions> with a JSON list of texts"
            self._game.report = f"Nothing was done: {fault}."
            return Step(-self._settings.malformed_penalty, {"malformed": fault})
        actions = lists[-1]
        outcome = self._game.perform(actions[: self._settings.max_actions])
        left = outcome.left + max(0, len(actions) - self._settings.max_actions)
        invalid = None if outcome.invalid is None else quote(outcome.invalid)
        info = {
            "done": outcome.done,
            "invalid": invalid,
            "fault": outcome.fault,
            "not_done": left,
            "used": self._game.used,
            "shortest": self._game.shortest,
            "distance": self._game.distance,
            "solved": self._game.solved,
        }
        return Step(self._reward(len(outcome.done), outcome.invalid is not None), info)

    def oracle(self) -> str:
        """Return the solver's actions from the current state; if it finds none, a legal action."""
        plan = _solution(self._game) or self._game.world.legal_actions(self._game.state)[:1]
        return _as_actions(plan[: self._settings.max_actions])

    def random(self, rng: random.Random) -> str:
        """Return a random walk of legal actions."""
        return _as_actions(_walk(self._game, self._settings, rng))

    def _reward(self, done: int, invalid: bool) -> float:
        """Return the reward of a turn; see `StatefulSettings`."""
        settings, game = self._settings, self._game
        reward = -settings.step_cost * done - (settings.invalid_penalty if invalid else 0.0)
        if not game.solved:
            return reward
        bonus = min(1.0, game.shortest / game.used) if game.shortest else 0.0
        return reward + settings.goal_reward + settings.optimality_bonus * bonus


def _described(game: Game, settings: StatefulSettings) -> str:
    symbols = f"\nHow the state is written: {game.world.symbols}." if settings.render == "text" else ""
    return f"{game.world.rules}{symbols}\nThe goal: {game.world.goal}"


def _messages(system: str, game: Game, settings: StatefulSettings, more: list[str]) -> list[Message]:
    """Return the prompt of an agent: system text, state, further paragraphs, and the report of the last actions.

    Args:
        system: Text of the system turn.
        game: The game, whose state is shown.
        settings: Whether the state is text or an image.
        more: Further paragraphs.
    """
    paragraphs = [*more, f"What became of the last actions: {game.report}"] if game.report else more
    content: str | list[dict[str, Any]]
    if settings.render == "text":
        content = "\n\n".join([f"The state:\n{game.world.render(game.state)}", *paragraphs])
    else:
        picture = {"type": "image", "image": draw(game.world.picture(game.state))}
        content = [picture, {"type": "text", "text": "\n\n".join(["The picture shows the state.", *paragraphs])}]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def _read_list(text: str) -> list[str]:
    """Parse a JSON list of texts; empty for anything else."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return []
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else []


def _as_actions(actions: list[str]) -> str:
    return f"<actions>{orjson.dumps(actions).decode()}</actions>"


def _solution(game: Game) -> list[str] | None:
    return None if game.distance is None else game.world.plan(game.state)


def _walk(game: Game, settings: StatefulSettings, rng: random.Random) -> list[str]:
    """Return a random walk of legal actions, as long as a turn may be."""
    state, actions = game.state, list[str]()
    while len(actions) < settings.max_actions and (legal := game.world.legal_actions(state)):
        actions.append(rng.choice(legal))
        state = game.world.next_state(state, actions[-1])
    return actions
