"""Puzzles with a state: one agent plans, another one acts, and rewards follow the distance to the goal."""

from rollmill.environments.registry import EnvironmentEntry

ENTRY = EnvironmentEntry(
    "stateful_env",
    "environment:StatefulEnvironment",
    "path finding, sokoban, sudoku, eight queens, blocksworld",
    success="the goal is reached",
)
