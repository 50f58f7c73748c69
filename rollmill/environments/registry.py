"""Registry of environments, and import of an environment by its name or path."""

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
    """Declaration of an environment in its module or package."""

    success: str = field(default="", kw_only=True)
    """Condition of success, for the documentation."""


ENVIRONMENTS = Registry("environment", "rollmill.environments", EnvironmentEntry, custom="a class")
"""All environments by name. A module of this package adds one by its `ENTRY`, another package by an entry point."""


def find_environment(spec: str) -> type[Environment]:
    """Import the environment that `spec` names: one of `ENVIRONMENTS`, or `package.module:Name`.

    `package.module.Name` is the same. Raises `InputError` if it cannot be imported, with that error, or is not an
    environment.
    """
    value = ENVIRONMENTS.load(spec)
    missing = [name for name in (*_CLASS, *_EPISODE) if not hasattr(value, name)]
    if not isinstance(value, type) or missing:
        what = f"it has no {', '.join(missing)}" if isinstance(value, type) else "it is no class"
        raise InputError(f"environment {spec!r} is not one: {what}; see rollmill.environments.environment.Environment")
    return value
