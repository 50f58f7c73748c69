"""A verifier that is a function."""

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

    A number is the reward, True is 1.0 and False is 0.0. The distance is 1 - reward, 0 for more than 1, and a success
    is a distance of at most `accept_error`: by default the full reward. A `Verdict` stands as it is, but for its
    `verifier`. The name is the function's. The version is the function's `verifier_version` if it has that, else a
    hash of the file that defines it, since the functions beside it may decide, too, and of the one that names it.

    Args:
        spec: How the user names the function, for messages.
        function: What is called with the problem and the completion.
        module: The imported module that names it.
        accept_error: Largest distance of a success.

    Raises `InputError` for a function that cannot be called so, or whose version cannot be known.
    """

    def __init__(self, spec: str, function: Callable[..., Any], *, module: str, accept_error: float = 0.0) -> None:
        _check_call(spec, function)
        self._function = function
        self._accept_error = accept_error
        definition = _definition(function)
        self.name = str(definition.__name__)
        self.version = _version(spec, function, (sys.modules[module], definition))

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Call the function. Raises what it raises, and `TypeError` or `ValueError` for what is no finite number."""
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
        # Scalars of NumPy and PyTorch are numbers that `isinstance` does not know.
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
        return  # some functions in C do not say: the first call will
    try:
        signature.bind("problem", "completion")
    except TypeError as error:
        raise InputError(f"verifier {spec!r} cannot be called with a problem and a completion: {error}") from error


def _definition(function: Any) -> Any:
    """Return the function, or the class of an object, whose source decides: behind decorators and partial calls."""
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = inspect.unwrap(function.func)
    return function if inspect.isroutine(function) else type(function)


def _version(spec: str, function: Callable[..., Any], sources: Iterable[Any]) -> str:
    """Return the version that a function states, or a hash of the files of `sources`."""
    given = getattr(function, "verifier_version", None)
    if given is not None:
        if not isinstance(given, str) or not given:
            raise InputError(f"verifier {spec!r}: its verifier_version is no text: give it one")
        return given
    try:
        paths = dict.fromkeys(inspect.getsourcefile(source) or "" for source in sources)
        content = b"".join(Path(path).read_bytes() for path in paths)
    except (TypeError, OSError):
        raise InputError(
            f"verifier {spec!r}: its source cannot be read, which tells one version of it from another: "
            f"set {spec.replace(':', '.').rpartition('.')[2]}.verifier_version to a text that changes with it"
        ) from None
    return f"source-{hashlib.sha256(content).hexdigest()[:12]}"
