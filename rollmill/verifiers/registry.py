"""From a verifier's name to the verifier."""

from __future__ import annotations

import importlib
import inspect
import math
import sys

from rollmill.errors import InputError
from rollmill.records import Problem
from rollmill.verifiers.failure import describe
from rollmill.verifiers.protocol import Verifier

BUILT_IN = {
    "numeric": "rollmill.verifiers.numeric:NumericVerifier",
    "exact": "rollmill.verifiers.exact:ExactVerifier",
    "math": "rollmill.verifiers.math_equality:MathVerifier",
    "reasoning_gym": "rollmill.verifiers.reasoning_gym_score:ReasoningGymVerifier",
}
"""Where each class is: imported when it is used, since every command line lists the names."""
_TRUSTED = ("numeric", "exact")


def make_verifier(spec: str, *, accept_error: float = 0.0) -> Verifier:
    """The verifier that `spec` names: a built-in one, or `package.module:Name` (or `package.module.Name`).

    `Name` is a class, called with `accept_error=` where it takes that and without arguments otherwise, or an instance.
    Raises `InputError` where there is no such verifier or it cannot be made.
    """
    if not (math.isfinite(accept_error) and accept_error >= 0):
        raise InputError(f"accept_error must be a number from 0, not {accept_error}")
    found = _find(BUILT_IN.get(spec, spec))
    if isinstance(found, type):
        found = _make(spec, found, accept_error)
    return _checked(spec, found)


def is_trusted(verifier: Verifier) -> bool:
    """True for those that always end soon and cannot harm the process: they are called where they are needed."""
    return built_in_name(verifier) in _TRUSTED


def built_in_name(verifier: Verifier) -> str | None:
    """The name of a verifier of this package; None for a user's own, be it a subclass of one."""
    kind = type(verifier)
    return next((name for name, path in BUILT_IN.items() if kind is _loaded(path)), None)


def evaluates(verifier: Verifier, problem: Problem) -> bool:
    """Whether a built-in verifier judges the problem's answers by running them as programs."""
    ask = getattr(verifier, "evaluates", None)
    return built_in_name(verifier) is not None and ask is not None and bool(ask(problem))


def problem_fault(verifier: Verifier, problem: Problem) -> str | None:
    """Why `verifier` cannot judge `problem` ("answer 'abc' is not a number"); None where it can or does not say.

    Raises `InputError` where it could judge such problems, but not on this machine.
    """
    ask = getattr(verifier, "problem_fault", None)
    return ask(problem) if ask else None


def _loaded(path: str) -> object:
    """The class of a built-in verifier where its module is imported: of others there are no instances."""
    module, _, name = path.partition(":")
    return getattr(sys.modules.get(module), name, None)


def _find(spec: str) -> object:
    module, _, attribute = spec.rpartition(":" if ":" in spec else ".")
    if not module or not attribute:
        names = ", ".join(BUILT_IN)
        raise InputError(f"there is no verifier {spec!r}: use {names}, or the path of a class as package.module:Name")
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"verifier {spec!r}: cannot import {module!r} ({describe(error)}); a module of your own must be in the "
            "current directory or on PYTHONPATH"
        ) from error
    try:
        value: object = getattr(found, attribute)
    except AttributeError:
        raise InputError(f"verifier {spec!r}: the module {module!r} has no {attribute!r}") from None
    return value


def _make(spec: str, found: type, accept_error: float) -> object:
    try:
        return found(accept_error=accept_error) if _takes_accept_error(found) else found()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"verifier {spec!r} cannot be made: {describe(error)}") from error


def _takes_accept_error(found: type) -> bool:
    try:
        parameters = inspect.signature(found).parameters
    except ValueError:
        return False
    named = "accept_error" in parameters
    return named or any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _checked(spec: str, found: object) -> Verifier:
    if not callable(getattr(found, "verify", None)):
        raise InputError(f"verifier {spec!r} has no method verify(problem, completion)")
    for attribute in ("name", "version"):
        value = getattr(found, attribute, None)
        if not isinstance(value, str) or not value:
            raise InputError(f"verifier {spec!r} has no {attribute}: give it one as text")
    return found  # type: ignore[return-value]
