"""Environment of puzzles with a state, for a planner and a tool caller."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from rollmill.environments.environment import Demonstrator, FixedCast
from rollmill.environments.stateful.agents import Planner, ToolCaller
from rollmill.environments.stateful.game import Game
from rollmill.environments.stateful.making import write_problems
from rollmill.environments.stateful.settings import StatefulSettings
from rollmill.environments.stateful.worlds import world_of
from rollmill.environments.tools import Tool, Tools
from rollmill.problems import ProblemSource
from rollmill.records import Problem


class StatefulEnvironment(FixedCast):
    """Path finding, sokoban, sudoku, eight queens or blocksworld; each problem names its world.

    A problem's `fields` are `world`, `state` as the world stores it, and `optimal_length`; or it is a reasoning-gym
    problem of sokoban, sudoku, mini_sudoku, n_queens or shortest_path. The episode ends when the goal is reached, or
    when the world detects that it cannot be reached any more.
    """

    name: ClassVar[str] = "stateful_env"
    version: ClassVar[str] = "1"
    Settings: ClassVar[type[StatefulSettings]] = StatefulSettings
    needs: ClassVar[frozenset[Tool]] = frozenset()
    without_answers: ClassVar[bool] = True

    def __init__(self, game: Game, settings: StatefulSettings) -> None:
        self._game = game
        acting = ToolCaller(game, settings, planned=not settings.single_agent)
        roles: list[Demonstrator] = [acting] if settings.single_agent else [Planner(game, settings), acting]
        super().__init__(dict(zip(self.agent_names(settings), roles, strict=True)))

    @classmethod
    def agent_names(cls, settings: StatefulSettings) -> tuple[str, ...]:
        """See `Environment`."""
        return ("stateful_single_agent",) if settings.single_agent else ("planner", "tool_caller")

    @classmethod
    def source(cls, settings: StatefulSettings, folder: Path) -> ProblemSource:
        """See `Environment`."""
        path = folder / "stateful_problems.jsonl"
        write_problems(settings, path)
        return ProblemSource(
            dataset=str(path), prompt_field="prompt", answer_field="", id_field="instance_id", image_field=""
        )

    @classmethod
    def problem_fault(cls, settings: StatefulSettings, problem: Problem) -> str | None:
        """See `Environment`."""
        try:
            world_of(problem)
            _stored_length(problem)
        except ValueError as error:
            return str(error)
        return None

    @classmethod
    def make(cls, problem: Problem, seed: int, settings: StatefulSettings, tools: Tools) -> Self:
        """See `Environment`.

        Args:
            problem: The puzzle.
            seed: Not used, since the environment is deterministic.
            settings: Prompts and rewards.
            tools: Not used.
        """
        world = world_of(problem)
        shortest = _stored_length(problem)
        if shortest is None:
            plan = world.plan(world.start)
            shortest = None if plan is None else len(plan)
        return cls(Game(world, shortest), settings)

    @property
    def done(self) -> bool:
        """Return whether the goal is reached, or can no longer be reached."""
        return self.success or self._game.distance is None

    @property
    def success(self) -> bool:
        """Return whether the state is the goal."""
        return self._game.solved


def _stored_length(problem: Problem) -> int | None:
    length = problem.fields.get("optimal_length")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise ValueError(f"fields.optimal_length is {length!r}: it must be a number from 1, or left out")
    return length
