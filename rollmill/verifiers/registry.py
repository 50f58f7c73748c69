"""Registry of verifiers, and construction of a verifier from its name or path."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rollmill.errors import InputError, describe
from rollmill.registry import Entry, Registry, split_path

if TYPE_CHECKING:  # every command line lists the names, and needs none of this
    from rollmill.records import Problem
    from rollmill.verifiers.answer_tag import AnswerReading
    from rollmill.verifiers.protocol import Verifier


@dataclass(frozen=True)
class VerifierEntry(Entry):
    """Declaration of a verifier in its module."""

    trusted: bool = field(default=False, kw_only=True)
    """True if it always terminates quickly and cannot harm the process; it is then called without a worker."""


VERIFIERS = Registry(
    "verifier",
    "rollmill.verifiers",
    VerifierEntry,
    custom="a function or class",
    also=["rollmill.environments.code.verifier"],
)
"""All verifiers by name. A module of this package registers one by its `ENTRY`, another package by an entry point."""


_OPTIONS = {"answer": "last", "strict_numbers": False}
"""Options that not every verifier has, with their defaults."""


class WeightedName(NamedTuple):
    """A verifier among several, and its share of the reward."""

    spec: str
    weight: float
    """Weight as the user gave it; the share is the weight divided by the sum of all."""


def read_verifiers(spec: str) -> list[WeightedName]:
    """Parse one verifier (`math`), or several with weights (`math=0.8 code=0.2`), without importing them.

    Raises `ValueError`.
    """
    parts = spec.split()
    if len(parts) == 1 and "=" not in parts[0]:
        return [WeightedName(VERIFIERS.check_name(parts[0]), 1.0)]
    if not parts:
        raise ValueError(f"there is no such verifier: {VERIFIERS.hint(spec)}")
    weighted = [_read_weight(part) for part in parts]
    names = [name for name, _ in weighted]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"{twice} is given twice: give each verifier one weight")
    return weighted


def check_verifiers(spec: str) -> str:
    """Validate `spec` and return it in canonical form, without importing the verifiers.

    Raises `ValueError` as `read_verifiers` does.
    """
    if not spec.split() or (len(spec.split()) == 1 and "=" not in spec):
        return VERIFIERS.check_name(spec)
    weighted = read_verifiers(spec)
    return weighted[0].spec if len(weighted) == 1 else " ".join(f"{name}={weight:g}" for name, weight in weighted)


def _read_weight(part: str) -> WeightedName:
    name, equals, text = part.rpartition("=")
    if not equals:
        raise ValueError(f"{part} has no weight: give each of several verifiers one, as in math=0.8 code=0.2")
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"{part}: the weight must be a number above 0, not {text}")
    return WeightedName(VERIFIERS.check_name(name), weight)


def make_verifiers(spec: str, **arguments: Any) -> list[Verifier]:
    """Make the verifiers that `spec` names, with the arguments of `make_verifier`.

    Each of several receives the arguments that it has. Raises `InputError` as `make_verifier` does, and for an argument
    other than the default that none of them has.
    """
    try:
        weighted = read_verifiers(spec)
    except ValueError as error:
        raise InputError(str(error)) from None
    return [make_verifier(name, **taken) for name, taken in share_arguments(weighted, arguments)]


def share_arguments(weighted: Sequence[WeightedName], arguments: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return each verifier's name with its arguments. Raises `InputError`, see `make_verifiers`."""
    if len(weighted) == 1:
        return [(weighted[0].spec, arguments)]
    chosen = _non_default(arguments)
    knows = {each.spec: {name for name in chosen if _knows(each.spec, name)} for each in weighted}
    for name, value in chosen.items():
        if not any(name in known for known in knows.values()):
            raise InputError(f"none of the verifiers knows {_flag(name, value)}: leave it out, or choose another")
    return [
        (spec, {name: value for name, value in arguments.items() if name not in chosen or name in known})
        for spec, known in knows.items()
    ]


def make_verifier(
    spec: str, *, accept_error: float = 0.0, answer: AnswerReading = "last", strict_numbers: bool = False
) -> Verifier:
    """Make the verifier that `spec` names: one of `VERIFIERS`, or `package.module:Name` (or `package.module.Name`).

    `Name` is a class, called with those of the arguments that it has, or an instance, or a function
    `(problem, completion)`, see `FunctionVerifier`. Raises `InputError` if there is no such verifier, it cannot be
    made, or it does not have an argument that is not the default.

    Args:
        spec: Name or path.
        accept_error: Largest distance of a success.
        answer: The pair of `<answer>` tags that is judged.
        strict_numbers: Whether only a bare number between tags is accepted.
    """
    if not (math.isfinite(accept_error) and accept_error >= 0):
        raise InputError(f"accept_error must be a number from 0, not {accept_error}")
    chosen = _non_default({"answer": answer, "strict_numbers": strict_numbers})
    verifier = VERIFIERS.load(spec)
    _check_takes(spec, verifier, chosen)
    if isinstance(verifier, type):
        arguments = {"accept_error": accept_error} if _takes(verifier, "accept_error") else {}
        verifier = _make(spec, verifier, arguments | chosen)
    if callable(verifier) and not hasattr(verifier, "verify"):
        from rollmill.verifiers.function_verifier import FunctionVerifier

        module, _ = split_path(VERIFIERS[spec].path if spec in VERIFIERS else spec)
        verifier = FunctionVerifier(spec, verifier, module=module, accept_error=accept_error)
    return _check_interface(spec, verifier)


def is_trusted(verifier: Verifier) -> bool:
    """Return whether a verifier may run in this process, as it terminates quickly and cannot harm the process."""
    name = built_in_name(verifier)
    return name is not None and VERIFIERS[name].trusted


def built_in_name(verifier: Verifier) -> str | None:
    """Return the name of a verifier of this package; None for a user's own, even if it is a subclass of a built-in."""
    kind = type(verifier)
    names = (name for name, entry in VERIFIERS.items() if entry.built_in and kind is _imported_class(entry.path))
    return next(names, None)


def is_built_in(spec: str) -> bool:
    """Return whether `spec` is the name of a verifier of this package."""
    return spec in VERIFIERS and VERIFIERS[spec].built_in


def evaluates(verifier: Verifier, problem: Problem) -> bool:
    """Return whether a built-in verifier judges the problem's answers by running them as programs."""
    method = getattr(verifier, "evaluates", None)
    return built_in_name(verifier) is not None and method is not None and bool(method(problem))


def problem_fault(verifier: Verifier, problem: Problem) -> str | None:
    """Return why `verifier` cannot judge `problem` ("answer 'abc' is not a number"); None if it can, or has no check.

    Raises `InputError` if it could judge such problems, but not on this machine.
    """
    method = getattr(verifier, "problem_fault", None)
    return method(problem) if method else None


def _imported_class(path: str) -> object:
    """Return a class if its module is imported, without importing it: otherwise there are no instances to compare."""
    module, _, name = path.partition(":")
    return getattr(sys.modules.get(module), name, None)


def _make(spec: str, kind: type, arguments: dict[str, Any]) -> object:
    try:
        return kind(**arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"verifier {spec!r} cannot be made: {describe(error)}") from error


def _non_default(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments in `_OPTIONS` whose values are not the defaults."""
    return {name: arguments[name] for name, default in _OPTIONS.items() if arguments.get(name, default) != default}


def _check_takes(spec: str, verifier: object, chosen: dict[str, Any]) -> None:
    for name, value in chosen.items():
        if not (isinstance(verifier, type) and _takes(verifier, name)):
            raise InputError(
                f"verifier {spec!r} knows no {_flag(name, value)}: leave it out, or choose another --verifier"
            )


def _flag(name: str, value: object) -> str:
    return f"--{name}" if value is True else f"--{name} {value}"


def _knows(spec: str, name: str) -> bool:
    kind = VERIFIERS.load(spec)
    return isinstance(kind, type) and _takes(kind, name)


def _takes(kind: type, name: str) -> bool:
    try:
        parameters = inspect.signature(kind).parameters
    except ValueError:
        return False
    return name in parameters or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    )


def _check_interface(spec: str, verifier: object) -> Verifier:
    if not callable(getattr(verifier, "verify", None)):
        raise InputError(
            f"verifier {spec!r} has no method verify(problem, completion), and is no function of the two either"
        )
    for attribute in ("name", "version"):
        value = getattr(verifier, attribute, None)
        if not isinstance(value, str) or not value:
            raise InputError(f"verifier {spec!r} has no {attribute}: give it one as text")
    return verifier  # type: ignore[return-value]
