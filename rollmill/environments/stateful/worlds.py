"""Worlds by name, and construction of a problem's world."""

from __future__ import annotations

from typing import Any, Literal, get_args

from rollmill.environments.stateful.blocksworld import Blocksworld
from rollmill.environments.stateful.eight_queens import EightQueens
from rollmill.environments.stateful.gym_worlds import read_gym_problem
from rollmill.environments.stateful.path_finding import PathFinding
from rollmill.environments.stateful.sokoban import Sokoban
from rollmill.environments.stateful.sudoku import Sudoku
from rollmill.environments.stateful.world import World
from rollmill.records import Problem

WorldName = Literal["path_finding", "sokoban", "sudoku", "eight_queens", "blocksworld"]
NAMES: tuple[WorldName, ...] = get_args(WorldName)
WORLDS: dict[str, type[World[Any]]] = {
    "path_finding": PathFinding,
    "sokoban": Sokoban,
    "sudoku": Sudoku,
    "eight_queens": EightQueens,
    "blocksworld": Blocksworld,
}


def world_of(problem: Problem) -> World[Any]:
    """Build the puzzle of `fields.world` and `fields.state`, or of a reasoning-gym question.

    Raises `ValueError` if there is none, or if it cannot be solved or is solved already.
    """
    if "world" in problem.fields or "reasoning_gym" not in problem.fields:
        name, stored = problem.fields.get("world"), problem.fields.get("state")
    else:
        name, stored = read_gym_problem(problem)
    if name not in WORLDS:
        raise ValueError(f"fields.world is {name!r}: use {', '.join(NAMES)}")
    if not isinstance(stored, dict):
        raise ValueError("fields.state is not an object")
    world = WORLDS[name].parse(stored)
    if world.is_goal(world.start):
        raise ValueError("the puzzle is solved already")
    return world
