"""From a verifier's name to the verifier."""

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
    """What a module declares about its verifier."""

    trusted: bool = field(default=False, kw_only=True)
    """Whether it always ends soon and cannot harm the process: then it is called in place, without a worker."""


VERIFIERS = Registry(
    "verifier",
    "rollmill.verifiers",
    VerifierEntry,
    custom="a function or class",
    also=["rollmill.environments.code.verifier"],
)
"""All verifiers by name; a module adds one by its `ENTRY`, an installed package by an entry point."""


_READINGS = {"answer": "last", "strict_numbers": False}
"""The ways to read an answer that not every verifier knows, with their defaults."""


class WeightedName(NamedTuple):
    """A verifier among several, and its share of the reward."""

    spec: str
    weight: float
    """As it was given; shares are these over their sum."""


def read_verifiers(spec: str) -> list[WeightedName]:
    """Read one verifier (`math`), or several with weights (`math=0.8 code=0.2`); import nothing.

    Raises `ValueError` with what is wrong.
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
    """Return `spec`, written in one way, if it names one verifier or several with weights; import nothing.

    Raises `ValueError` as `read_verifiers` does, for the validator of a parameter.
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

    Of several each takes those that it knows. Raises `InputError` as `make_verifier` does, and for an argument that is
    not a default and that none of them takes.
    """
    try:
        weighted = read_verifiers(spec)
    except ValueError as error:
        raise InputError(str(error)) from None
    return [make_verifier(name, **taken) for name, taken in share_arguments(weighted, arguments)]


def share_arguments(weighted: Sequence[WeightedName], arguments: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return each verifier's name with the arguments for it. Raises `InputError`, see `make_verifiers`."""
    if len(weighted) == 1:
        return [(weighted[0].spec, arguments)]
    chosen = _chosen(arguments)
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

    `Name` is a class, called with those of the arguments that it takes, or an instance, or a function
    `(problem, completion)`, see `FunctionVerifier`.
    Raises `InputError` where there is no such verifier, it cannot be made, or it does not take what is not a default.

    Args:
        spec: The name or the path.
        accept_error: Largest distance of a success.
        answer: Which pair of `<answer>` tags counts.
        strict_numbers: Whether only a bare number between tags is one.
    """
    if not (math.isfinite(accept_error) and accept_error >= 0):
        raise InputError(f"accept_error must be a number from 0, not {accept_error}")
    chosen = _chosen({"answer": answer, "strict_numbers": strict_numbers})
    verifier = VERIFIERS.load(spec)
    _check_takes(spec, verifier, chosen)
    if isinstance(verifier, type):
        given = {"accept_error": accept_error} if _takes(verifier, "accept_error") else {}
        verifier = _make(spec, verifier, given | chosen)
    if callable(verifier) and not hasattr(verifier, "verify"):
        from rollmill.verifiers.function_verifier import FunctionVerifier

        module, _ = split_path(VERIFIERS[spec].path if spec in VERIFIERS else spec)
        verifier = FunctionVerifier(spec, verifier, module=module, accept_error=accept_error)
    return _checked(spec, verifier)


def is_trusted(verifier: Verifier) -> bool:
    """Return whether a verifier always ends soon and cannot harm the process, so that it may run in this process."""
    name = built_in_name(verifier)
    return name is not None and VERIFIERS[name].trusted


def built_in_name(verifier: Verifier) -> str | None:
    """Return the name of a verifier of this package; None for a user's own, be it a subclass of one."""
    kind = type(verifier)
    names = (name for name, entry in VERIFIERS.items() if entry.built_in and kind is _loaded(entry.path))
    return next(names, None)


def is_built_in(spec: str) -> bool:
    """Return whether `spec` is the name of a verifier of this package."""
    return spec in VERIFIERS and VERIFIERS[spec].built_in


def evaluates(verifier: Verifier, problem: Problem) -> bool:
    """Return whether a built-in verifier judges the problem's answers by running them as programs."""
    ask = getattr(verifier, "evaluates", None)
    return built_in_name(verifier) is not None and ask is not None and bool(ask(problem))


def problem_fault(verifier: Verifier, problem: Problem) -> str | None:
    """Return why `verifier` cannot judge `problem` ("answer 'abc' is not a number"); None if it can or does not say.

    Raises `InputError` where it could judge such problems, but not on this machine.
    """
    ask = getattr(verifier, "problem_fault", None)
    return ask(problem) if ask else None


def _loaded(path: str) -> object:
    """Return the class of a built-in verifier if its module is imported: of others there are no instances."""
    module, _, name = path.partition(":")
    return getattr(sys.modules.get(module), name, None)


def _make(spec: str, kind: type, arguments: dict[str, Any]) -> object:
    try:
        return kind(**arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"verifier {spec!r} cannot be made: {describe(error)}") from error


def _chosen(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that are no default, and that a verifier may not know."""
    return {name: arguments[name] for name, default in _READINGS.items() if arguments.get(name, default) != default}


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


def _checked(spec: str, verifier: object) -> Verifier:
    if not callable(getattr(verifier, "verify", None)):
        raise InputError(
            f"verifier {spec!r} has no method verify(problem, completion), and is no function of the two either"
        )
    for attribute in ("name", "version"):
        value = getattr(verifier, attribute, None)
        if not isinstance(value, str) or not value:
            raise InputError(f"verifier {spec!r} has no {attribute}: give it one as text")
    return verifier  # type: ignore[return-value]
