"""Interfaces of environments and of the agents that act in them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from pydantic import BaseModel, ConfigDict

from rollmill.environments.tools import Tool, Tools
from rollmill.errors import InputError
from rollmill.problems import ProblemSource
from rollmill.records import Message, Problem


class Step(NamedTuple):
    """The outcome of one action."""

    reward: float
    """Reward of the agent for this turn; finite."""
    info: Mapping[str, Any] = {}
    """Details as JSON, for the journal."""


class Agent(Protocol):
    """One role in an episode: observes the state that it shares with the other agents, and acts on it.

    Two more methods are optional, see `Demonstrator`: `oracle() -> str`, the completion of a player who knows the
    solution, and `random(rng: random.Random) -> str`, a random well-formed completion. They make the policies `oracle`
    and `random` available for the role.
    """

    def prompt(self) -> list[Message]:
        """Return the chat messages for the agent, built from the current state.

        Content is text, or a list of `{"type": "text", "text": str}` and `{"type": "image", "image": bytes}`.
        """
        ...

    def act(self, completion: str) -> Step:
        """Apply a completion to the state. A malformed completion is a step with a reward, never an exception.

        Raises `SandboxError`, or another `RollmillError`, if the infrastructure fails.
        """
        ...


class Demonstrator(Agent, Protocol):
    """An agent with policies that need no model."""

    def oracle(self) -> str:
        """Return the completion of a player who knows the solution."""
        ...

    def random(self, rng: random.Random) -> str:
        """Return a random well-formed completion."""
        ...


class Environment(Protocol):
    """The environment of one episode, made from a problem, a seed and settings.

    A turn is one round over `turn_order`, which ends early once `done` is true. Methods are synchronous and may block:
    each episode has its own thread. Class attributes describe what the episodes need.

    Two more names are optional: `without_answers = True` if the ground truth is in the problem's `fields`, so that data
    sets need no answer column, and the class method `identity(settings) -> dict`, which returns what else determines
    the episodes (such as the hash of a file that the settings name).
    """

    name: ClassVar[str]
    version: ClassVar[str]
    """Must change whenever prompts, transitions or rewards may change; part of a run's identity."""
    Settings: ClassVar[type[BaseModel]]
    """Model of the settings (`env.<name>=...`), frozen, `extra="forbid"`, with a default for every field.

    A field that names a file must be a `Path` (or a `rollmill.environments.paths.PathText`), so that its path is made
    absolute for workers with another working directory.
    """
    needs: ClassVar[frozenset[Tool]]
    """The tools that its episodes use."""

    @classmethod
    def agent_names(cls, settings: Any) -> tuple[str, ...]:
        """Return the names of the roles of every episode, in turn order."""
        ...

    @classmethod
    def source(cls, settings: Any, folder: Path) -> ProblemSource:
        """Return the built-in problems, used where no data set is given; generated files are written to `folder`."""
        ...

    @classmethod
    def problem_fault(cls, settings: Any, problem: Problem) -> str | None:
        """Return why a problem cannot be played ("fields.test is missing"); None if it can. Must be fast."""
        ...

    @classmethod
    def make(cls, problem: Problem, seed: int, settings: Any, tools: Tools) -> Self:
        """Make the environment of a new episode. Raises `ValueError` for a problem that cannot be played.

        Args:
            problem: The problem to play; `problem_fault` returned None for it.
            seed: Seed of all random choices of the episode.
            settings: Instance of `Settings`.
            tools: Sandboxed Python, verification and search; None for tools that are not in `needs`.
        """
        ...

    @property
    def agents(self) -> Mapping[str, Agent]:
        """Return the agents by name: those of `agent_names`."""
        ...

    @property
    def turn_order(self) -> Sequence[str]:
        """Return the names of the agents of the next turn, in acting order; called before each turn."""
        ...

    @property
    def done(self) -> bool:
        """Return whether the episode ends before its last turn."""
        ...

    @property
    def success(self) -> bool:
        """Return whether the problem is solved in the current state, by the ground truth alone."""
        ...


class NoSettings(BaseModel):
    """The settings of an environment that has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FixedCast:
    """Base class of environments whose agents act in the same order in every turn.

    A subclass has at least `name`, `version`, `agent_names`, `make` and `success`. Unless it says otherwise, it has no
    settings, needs no tools, can play every problem, has no built-in problems, and an episode ends with its success.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    Settings: ClassVar[type[BaseModel]] = NoSettings
    needs: ClassVar[frozenset[Tool]] = frozenset()

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._agents = agents

    @property
    def agents(self) -> Mapping[str, Agent]:
        """See `Environment`."""
        return self._agents

    @classmethod
    def source(cls, settings: Any, folder: Path) -> ProblemSource:
        """Raise `InputError`: the problems have to be given."""
        raise InputError(f"--dataset: required: environment {cls.name!r} has no problems of its own")

    @classmethod
    def problem_fault(cls, settings: Any, problem: Problem) -> str | None:
        """Return None: every problem can be played."""
        return None

    @property
    def turn_order(self) -> Sequence[str]:
        """Return all agents' names, in the order of the constructor's mapping."""
        return tuple(self._agents)

    @property
    def done(self) -> bool:
        """Return whether the problem is solved."""
        solved: bool = self.success  # type: ignore[attr-defined]  # the subclass has it; `find_environment` checks that
        return solved
