"""Registry of verifiers, and construction of a verifier from its name or path."""

from __future__ import annotations

import inspect
import logging
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

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VerifierEntry(Entry):
    """Declaration of a verifier in its module."""

    trusted: bool = field(default=False, kw_only=True)
    """True if it always terminates quickly and cannot harm the process; it then runs in the calling process, not in a
    worker process."""


VERIFIERS = Registry(
    "verifier",
    "rollmill.verifiers",
    VerifierEntry,
    custom="a function or class",
    also=["rollmill.environments.code.verifier"],
)
"""All verifiers by name. A module of this package registers one by its `ENTRY`, another package by an entry point."""


_OPTIONS = {"answer": "last", "strict_numbers": False}
"""Options that not every verifier accepts, with their defaults; another value is refused where it is not accepted.

`accept_error` is none of them: verifiers whose distance is 0 or 1 ignore it, with a warning.
"""


class WeightedName(NamedTuple):
    """A verifier among several, and its share of the reward."""

    spec: str
    """Name of one verifier, or the path of a user's own."""
    weight: float
    """Weight as the user gave it; the share is the weight divided by the sum of all."""


def read_verifiers(verifiers: str) -> list[WeightedName]:
    """Parse one verifier (`math`), or several with weights (`math=0.8 code=0.2`), without importing them.

    Raises `ValueError`.
    """
    parts = verifiers.split()
    if len(parts) == 1 and "=" not in parts[0]:
        return [WeightedName(VERIFIERS.check_name(parts[0]), 1.0)]
    if not parts:
        raise ValueError(f"there is no such verifier: {VERIFIERS.hint(verifiers)}")
    weighted = [_read_weight(part) for part in parts]
    specs = [each.spec for each in weighted]
    twice = next((spec for spec in specs if specs.count(spec) > 1), None)
    if twice:
        raise ValueError(f"{twice} is given twice: give each verifier one weight")
    return weighted


def check_verifiers(verifiers: str) -> str:
    """Return `math` or `math=0.8 code=0.2` in canonical form, without importing the verifiers.

    One verifier has no weight, others six significant digits of it. Raises `ValueError` as `read_verifiers` does.
    """
    if "=" not in verifiers and len(verifiers.split()) <= 1:
        return VERIFIERS.check_name(verifiers)  # the text as it is: the message for a wrong name quotes it
    weighted = read_verifiers(verifiers)
    return weighted[0].spec if len(weighted) == 1 else " ".join(f"{spec}={weight:g}" for spec, weight in weighted)


def _read_weight(part: str) -> WeightedName:
    spec, equals, text = part.rpartition("=")
    if not equals:
        raise ValueError(f"{part} has no weight: give each of several verifiers one, as in math=0.8 code=0.2")
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"{part}: the weight must be a number above 0, not {text}")
    return WeightedName(VERIFIERS.check_name(spec), weight)


def make_verifiers(verifiers: str, **arguments: Any) -> list[Verifier]:
    """Make one or several verifiers, in the order of `read_verifiers`; `open_verifiers` applies the weights.

    `arguments` are those of `make_verifier`. Each of several verifiers receives those that it accepts. Warns of an
    `accept_error` that a verifier ignores. Raises `InputError` as `make_verifier` does, and for a value other than the
    default that none of several accepts.
    """
    try:
        weighted = read_verifiers(verifiers)
    except ValueError as error:
        raise InputError(str(error)) from None
    instances = [make_verifier(spec, **accepted) for spec, accepted in arguments_per_verifier(weighted, arguments)]
    if tolerance := arguments.get("accept_error"):
        ignoring = [each.spec for each in weighted if not _uses_accept_error(each.spec)]
        if ignoring:
            _log.warning("--accept_error %g has no effect on the verifier %s", tolerance, ", ".join(ignoring))
    return instances


def arguments_per_verifier(
    weighted: Sequence[WeightedName], arguments: dict[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Return each verifier's name with its arguments: all that have default values, and others that it accepts.

    Raises `InputError` for a value other than the default that none of several verifiers accepts; one verifier gets all
    arguments, and `make_verifier` refuses what it does not accept.
    """
    if len(weighted) == 1:
        return [(weighted[0].spec, arguments)]
    non_default = _non_default(arguments)
    accepted = {each.spec: {name for name in non_default if _accepts(each.spec, name)} for each in weighted}
    for name, value in non_default.items():
        if not any(name in names for names in accepted.values()):
            raise InputError(f"none of the verifiers accepts {_flag(name, value)}: leave it out, or choose another")
    return [
        (spec, {name: value for name, value in arguments.items() if name not in non_default or name in names})
        for spec, names in accepted.items()
    ]


def make_verifier(
    spec: str, *, accept_error: float = 0.0, answer: AnswerReading = "last", strict_numbers: bool = False
) -> Verifier:
    """Make the verifier that `spec` names: one of `VERIFIERS`, or `package.module:Name` (or `package.module.Name`).

    `Name` is a class, called with those of the arguments that its constructor accepts, or an instance, or a function
    `(problem, completion)`, see `FunctionVerifier`. Raises `InputError` if there is no such verifier, it cannot be
    made, or it does not accept an `answer` or `strict_numbers` other than the default.

    Args:
        spec: Name or path of one verifier.
        accept_error: Largest distance from the ground truth that counts as success; ignored by verifiers without a
            distance, or whose distance is 0 or 1.
        answer: Which `<answer>` pair is judged: the first or the last.
        strict_numbers: Whether only a bare number between tags is accepted.
    """
    if not (math.isfinite(accept_error) and accept_error >= 0):
        raise InputError(f"accept_error must be a number from 0, not {accept_error}")
    non_default = _non_default({"answer": answer, "strict_numbers": strict_numbers})
    verifier = VERIFIERS.load(spec)
    _check_accepts(spec, verifier, non_default)
    if isinstance(verifier, type):
        arguments = {"accept_error": accept_error} if _has_parameter(verifier, "accept_error") else {}
        verifier = _make(spec, verifier, arguments | non_default)
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


def executes_answers(verifier: Verifier, problem: Problem) -> bool:
    """Return whether a built-in verifier judges the problem's answers by running them as programs.

    False for a user's own verifier, whatever it says: it has no limits on resources, and need not survive a fork.
    """
    method = getattr(verifier, "executes_answers", None)
    return built_in_name(verifier) is not None and method is not None and bool(method(problem))


def problem_fault(verifier: Verifier, problem: Problem) -> str | None:
    """Return why `verifier` cannot judge `problem` ("answer 'abc' is not a number"); None if it can, or has no check.

    Raises `InputError` if it could judge such problems, but not on this machine.
    """
    method = getattr(verifier, "problem_fault", None)
    return method(problem) if method else None


def _imported_class(path: str) -> object:
    """Return a class, or None if its module is not imported: then no instance of it can exist."""
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


def _check_accepts(spec: str, verifier: object, non_default: dict[str, Any]) -> None:
    for name, value in non_default.items():
        if not (isinstance(verifier, type) and _has_parameter(verifier, name)):
            raise InputError(
                f"verifier {spec!r} does not accept {_flag(name, value)}: leave it out, or choose another --verifier"
            )


def _flag(name: str, value: object) -> str:
    return f"--{name}" if value is True else f"--{name} {value}"


def _accepts(spec: str, name: str) -> bool:
    kind = VERIFIERS.load(spec)
    return isinstance(kind, type) and _has_parameter(kind, name)


def _uses_accept_error(spec: str) -> bool:
    """Return whether success depends on `accept_error`: for a class that accepts it, and for every function."""
    verifier = VERIFIERS.load(spec)
    if isinstance(verifier, type):
        return _has_parameter(verifier, "accept_error")
    return callable(verifier) and not hasattr(verifier, "verify")


def _has_parameter(kind: type, name: str) -> bool:
    """Return whether a class's constructor has a parameter `name`, or `**kwargs`."""
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
