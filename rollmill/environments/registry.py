"""From an environment's name to its class."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rollmill.errors import InputError
from rollmill.verifiers.failure import describe

if TYPE_CHECKING:
    from rollmill.environments.environment import Environment

BUILT_IN = {
    "code_env": "rollmill.environments.code.environment:CodeEnvironment",
    "math_env": "rollmill.environments.mathematics.environment:MathEnvironment",
    "search_env": "rollmill.environments.search.environment:SearchEnvironment",
    "stateful_env": "rollmill.environments.stateful.environment:StatefulEnvironment",
}
_CLASS = ("name", "version", "Settings", "needs", "agent_names", "source", "problem_fault", "make")
_EPISODE = ("agents", "turn_order", "done", "success")


def find_environment(spec: str) -> type[Environment]:
    """The environment that `spec` names: a built-in one, or `package.module:Name` (or `package.module.Name`).

    Raises `InputError`, with the error of its import, where it cannot be had or is no environment.
    """
    path = BUILT_IN.get(spec, spec)
    module, _, attribute = path.rpartition(":" if ":" in path else ".")
    if not module or not attribute:
        raise InputError(
            f"there is no environment {spec!r}: use {', '.join(listed_environments())}, or the path of a class as "
            "package.module:Name"
        )
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"environment {spec!r}: cannot import {module!r} ({describe(error)}); a module of your own must be in the "
            "current directory or on PYTHONPATH"
        ) from error
    try:
        value = getattr(found, attribute)
    except AttributeError:
        raise InputError(f"environment {spec!r}: the module {module!r} has no {attribute!r}") from None
    missing = [name for name in (*_CLASS, *_EPISODE) if not hasattr(value, name)]
    if not isinstance(value, type) or missing:
        what = f"it has no {', '.join(missing)}" if isinstance(value, type) else "it is no class"
        raise InputError(f"environment {spec!r} is not one: {what}; see rollmill.environments.environment.Environment")
    return value


def listed_environments() -> list[str]:
    """The built-in ones that can be imported here."""
    return [name for name in BUILT_IN if _imports(name)]


def _imports(name: str) -> bool:
    try:
        find_environment(name)
    except InputError:
        return False
    return True
