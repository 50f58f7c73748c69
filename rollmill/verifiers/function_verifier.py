"""Adapter that makes a user's function a verifier."""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rollmill.errors import InputError
from rollmill.records import Problem, Verdict
from rollmill.verifiers.tolerance import is_accepted


class FunctionVerifier:
    """Judges by a user's function `(problem, completion) -> float | bool | Verdict`.

    A number is the reward, True is 1.0 and False is 0.0. The distance is 1 - reward, or 0 for a reward above 1; success
    is a distance of at most `accept_error`, by default the full reward. A returned `Verdict` is used as it is, except
    for its `verifier`. The name is the function's. The version is the function's `verifier_version` if it has one, else
    a hash of the file that defines it (other functions of that file may affect the verdict) and of the file that names
    it.

    Args:
        spec: Path of the function as the user gave it, for messages.
        function: Called with the problem and the completion.
        module: Name of the imported module that `spec` refers to.
        accept_error: Largest distance of a success.

    Raises `InputError` for a function that cannot be called with these arguments, or whose version is unknown.
    """

    def __init__(self, spec: str, function: Callable[..., Any], *, module: str, accept_error: float = 0.0) -> None:
        _check_call(spec, function)
        self._function = function
        self._accept_error = accept_error
        definition = _definition(function)
        self.name = str(definition.__name__)
        self.version = _version(spec, function, (sys.modules[module], definition))

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Call the function and return its verdict.

        Raises what the function raises, and `TypeError` or `ValueError` if it returns no finite number.
        """
        returned = self._function(problem, completion)
        verifier = f"{self.name}@{self.version}"
        if isinstance(returned, Verdict):
            return returned.model_copy(update={"verifier": verifier})
        reward = self._reward(returned)
        distance = max(0.0, 1.0 - reward)
        return Verdict(
            verifier=verifier,
            status="ok",
            distance=distance,
            reward=reward,
            success=is_accepted(distance, self._accept_error, 1.0),
        )

    def _reward(self, returned: Any) -> float:
        # Scalars of NumPy and PyTorch are not instances of `int` or `float`.
        number = returned.item() if callable(getattr(returned, "item", None)) else returned
        if not isinstance(number, bool | int | float):
            raise TypeError(f"{self.name} returned {type(returned).__name__}, not a number, a bool or a Verdict")
        if not math.isfinite(number):
            raise ValueError(f"{self.name} returned {number}, which is no finite number")
        return float(number)


def _check_call(spec: str, function: Callable[..., Any]) -> None:
    called = getattr(function, "__call__", function)  # noqa: B004 - an instance's own may be asynchronous
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        raise InputError(f"verifier {spec!r} is asynchronous: give a plain function of a problem and a completion")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # some functions in C have no signature; the first call shows whether it fits
    try:
        signature.bind("problem", "completion")
    except TypeError as error:
        raise InputError(f"verifier {spec!r} cannot be called with a problem and a completion: {error}") from error


def _definition(function: Any) -> Any:
    """Return the function, or the class of a callable object, without decorators and `partial`."""
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = inspect.unwrap(function.func)
    return function if inspect.isroutine(function) else type(function)


def _version(spec: str, function: Callable[..., Any], sources: Iterable[Any]) -> str:
    """Return the function's `verifier_version`, or a hash of the files that define `sources`."""
    version = getattr(function, "verifier_version", None)
    if version is not None:
        if not isinstance(version, str) or not version:
            raise InputError(f"verifier {spec!r}: its verifier_version is no text: give it one")
        return version
    try:
        paths = dict.fromkeys(inspect.getsourcefile(source) or "" for source in sources)
        content = b"".join(Path(path).read_bytes() for path in paths)
    except (TypeError, OSError):
        raise InputError(
            f"verifier {spec!r}: its source cannot be read, which tells one version of it from another: "
            f"set {spec.replace(':', '.').rpartition('.')[2]}.verifier_version to a text that changes with it"
        ) from None
    return f"source-{hashlib.sha256(content).hexdigest()[:12]}"
