"""From an environment's name to its class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rollmill.errors import InputError
from rollmill.registry import Entry, Registry

if TYPE_CHECKING:
    from rollmill.environments.environment import Environment

_CLASS = ("name", "version", "Settings", "needs", "agent_names", "source", "problem_fault", "make")
_EPISODE = ("agents", "turn_order", "done", "success")


@dataclass(frozen=True)
class EnvironmentEntry(Entry):
    """What a module or package declares about its environment."""

    success: str = field(default="", kw_only=True)
    """When an episode succeeds, for the documentation."""


ENVIRONMENTS = Registry("environment", "rollmill.environments", EnvironmentEntry, custom="a class")
"""All environments by name; a module adds one by its `ENTRY`, an installed package by an entry point."""


def find_environment(spec: str) -> type[Environment]:
    """Import the environment that `spec` names: one of `ENVIRONMENTS`, or `package.module:Name`.

    `package.module.Name` is the same. Raises `InputError`, with the error of its import, where it cannot be had or is
    no environment.
    """
    value = ENVIRONMENTS.load(spec)
    missing = [name for name in (*_CLASS, *_EPISODE) if not hasattr(value, name)]
    if not isinstance(value, type) or missing:
        what = f"it has no {', '.join(missing)}" if isinstance(value, type) else "it is no class"
        raise InputError(f"environment {spec!r} is not one: {what}; see rollmill.environments.environment.Environment")
    return value
