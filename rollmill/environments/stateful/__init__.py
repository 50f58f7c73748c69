"""Small worlds with a state: an agent plans, another acts, and the state says how far they have come."""

from rollmill.environments.registry import EnvironmentEntry

ENTRY = EnvironmentEntry(
    "stateful_env",
    "environment:StatefulEnvironment",
    "path finding, sokoban, sudoku, eight queens, blocksworld",
    success="the goal is reached",
)
