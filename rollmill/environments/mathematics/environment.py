"""Environment of mathematics problems, for one agent, or for two that have to agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from rollmill.environments.environment import Agent, FixedCast
from rollmill.environments.mathematics.agents import Reasoner, ToolUser
from rollmill.environments.mathematics.judging import Judge, is_gym
from rollmill.environments.mathematics.state import MathState
from rollmill.environments.question import question_fault, question_text
from rollmill.environments.tools import Tool, Tools
from rollmill.problems import ProblemSource
from rollmill.problems.gym import PREFIX
from rollmill.records import Problem
from rollmill.verifiers.math_equality import MathVerifier
from rollmill.verifiers.reasoning_gym_score import ReasoningGymVerifier

REASONER, TOOL_USER, SINGLE = "reasoner", "tool_user", "math_single_agent"


class MathSettings(BaseModel):
    """Settings of the mathematics environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    single_agent: bool = False
    """One agent that reasons, instead of two."""
    dataset: str = Field(default="gsm_symbolic", min_length=1)
    """Default problems: a reasoning-gym data set with answers of one line, as `NAME?size=100&seed=7&key=value`."""


class MathEnvironment(FixedCast):
    r"""Agents state answers until they agree, and succeed if the agreed answer is right.

    Every well-formed answer is judged against the ground truth: reward 1.0 if it is right, 0.0 if it is wrong, and -0.5
    for a completion without an answer and for a program that fails. Agreement ends the episode, right or wrong; without
    agreement the problem is not solved. A single agent's first well-formed answer is final.
    """

    name: ClassVar[str] = "math_env"
    version: ClassVar[str] = "2"
    Settings: ClassVar[type[BaseModel]] = MathSettings
    needs: ClassVar[frozenset[Tool]] = frozenset({"python", "verifier"})

    def __init__(self, state: MathState, agents: Mapping[str, Agent]) -> None:
        self._state = state
        super().__init__(agents)

    @classmethod
    def agent_names(cls, settings: MathSettings) -> tuple[str, ...]:
        """See `Environment`."""
        return (SINGLE,) if settings.single_agent else (REASONER, TOOL_USER)

    @classmethod
    def source(cls, settings: MathSettings, folder: Path) -> ProblemSource:
        """Return problems of reasoning-gym as a source; nothing is written to `folder`."""
        return ProblemSource(dataset=PREFIX + settings.dataset.removeprefix(PREFIX))

    @classmethod
    def problem_fault(cls, settings: MathSettings, problem: Problem) -> str | None:
        """See `Environment`."""
        verifier = ReasoningGymVerifier() if is_gym(problem) else MathVerifier()
        if fault := question_fault(problem) or verifier.problem_fault(problem):
            return fault
        if not settings.single_agent and len((problem.answer or "").strip().splitlines()) > 1:
            return "the answer has several lines, and of what a program prints the last one counts"
        return None

    @classmethod
    def make(cls, problem: Problem, seed: int, settings: MathSettings, tools: Tools) -> Self:
        """See `Environment`.

        Args:
            problem: The problem.
            seed: Not used, since the environment is deterministic.
            settings: Number of agents.
            tools: Needs verification, and sandboxed Python for two agents.
        """
        if tools.verification is None:
            raise ValueError("math_env needs a verifier")
        names = cls.agent_names(settings)
        known = None if problem.answer is None else problem.answer.strip()
        state = MathState(question_text(problem), known, Judge(problem, tools.verification), len(names))
        if settings.single_agent:
            return cls(state, {SINGLE: Reasoner(state, SINGLE)})
        if tools.python is None:
            raise ValueError("math_env needs Python for its tool user")
        return cls(
            state,
            {REASONER: Reasoner(state, REASONER), TOOL_USER: ToolUser(state, TOOL_USER, tools.python)},
        )

    @property
    def done(self) -> bool:
        """Return whether the agents agree; for a single agent, whether it has answered."""
        return self._state.agreed

    @property
    def success(self) -> bool:
        """Return whether the agreed answers are right."""
        return self._state.solved
