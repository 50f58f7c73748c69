"""What an environment is: the world of one episode, and the agents that act in it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from pydantic import BaseModel

from rollmill.environments.tools import Tool, Tools
from rollmill.problems import ProblemSource
from rollmill.records import Message, Problem


class Step(NamedTuple):
    """What became of one action."""

    reward: float
    """Of the agent, for this turn; finite."""
    info: Mapping[str, Any] = {}
    """What the environment saw, as JSON: it stands in the journal."""


class Agent(Protocol):
    """One role in an episode: sees the state that it shares with the others, and acts on it.

    Two methods more are optional, and looked for by name: `oracle() -> str`, what one who knows the solution says now,
    and `random(rng: random.Random) -> str`, a well-formed action picked blindly. With them the policies `oracle` and
    `random` can play the role.
    """

    def prompt(self) -> list[Message]:
        """What the agent is shown: chat messages, from the state as it is now.

        Content is text, or a list of `{"type": "text", "text": str}` and `{"type": "image", "image": bytes}`.
        """
        ...

    def act(self, completion: str) -> Step:
        """Takes what the agent says. What is malformed is a step with its reward, never an exception.

        Raises `SandboxError`, or another `RollmillError`, where something outside fails.
        """
        ...


class Demonstrator(Agent, Protocol):
    """An agent that can be played without a model."""

    def oracle(self) -> str:
        """What one who knows the solution says now."""
        ...

    def random(self, rng: random.Random) -> str:
        """A well-formed action, picked blindly."""
        ...


class Environment(Protocol):
    """The world of one episode: made from a problem, a seed and settings, and thrown away at the end.

    A turn is one round over `turn_order`; it breaks off as soon as `done`. Nothing here is asynchronous: what it does
    blocks a thread of its own. The class itself says what its episodes need.

    Two names more are optional, and looked for: `without_answers = True` where the ground truth is in the problem's
    `fields`, so that data sets need no column of answers, and the class method `identity(settings) -> dict`, what else
    makes its episodes the ones they are (the hash of a file that the settings name).
    """

    name: ClassVar[str]
    version: ClassVar[str]
    """Changes whenever prompts, transitions or rewards may change: part of a run's identity."""
    Settings: ClassVar[type[BaseModel]]
    """What a user may set (`env.<name>=...`), frozen, `extra="forbid"`, with a default for everything.

    What names a file is a `Path` (or a `rollmill.environments.paths.PathText`): workers in other folders find it, too.
    """
    needs: ClassVar[frozenset[Tool]]
    """The tools that its episodes use."""

    @classmethod
    def agent_names(cls, settings: Any) -> tuple[str, ...]:
        """The roles of every episode, in turn order."""
        ...

    @classmethod
    def source(cls, settings: Any, folder: Path) -> ProblemSource:
        """The problems that it brings, for a user who names no data set; a file made for them goes to `folder`."""
        ...

    @classmethod
    def problem_fault(cls, settings: Any, problem: Problem) -> str | None:
        """Why a problem cannot be played ("fields.test is missing"); None where it can. Cheap."""
        ...

    @classmethod
    def make(cls, problem: Problem, seed: int, settings: Any, tools: Tools) -> Self:
        """A new episode's world. Raises `ValueError` for a problem that cannot be played after all."""
        ...

    @property
    def agents(self) -> Mapping[str, Agent]:
        """By name: those of `agent_names`."""
        ...

    @property
    def turn_order(self) -> Sequence[str]:
        """The agents of the next turn, in the order in which they act; asked before each turn."""
        ...

    @property
    def done(self) -> bool:
        """Whether the episode is over before its last turn."""
        ...

    @property
    def success(self) -> bool:
        """Whether the problem is solved as things stand, by the ground truth and by nothing else."""
        ...


class FixedCast:
    """What environments derive from whose agents act in the same order in every turn."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._agents = agents

    @property
    def agents(self) -> Mapping[str, Agent]:
        """See `Environment`."""
        return self._agents

    @property
    def turn_order(self) -> Sequence[str]:
        """All of them, in the order in which they were given."""
        return tuple(self._agents)
