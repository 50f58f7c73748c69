"""Check reference solutions: a problem whose reference fails its own tests cannot judge a model."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from rollmill.environments.code.checking import Case, Checker
from rollmill.environments.code.subject import Subject
from rollmill.verifiers.failure import VerifierFailed

ResultT = TypeVar("ResultT")
_KEPT = 1000


class ResultCache(Generic[ResultT]):
    """LRU-like cache by problem, in which each result is computed once, also for concurrent callers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: OrderedDict[object, Future[ResultT]] = OrderedDict()

    def get(self, key: object, find: Callable[[], ResultT]) -> ResultT:
        """Return the result for a key, computed by `find` if it is missing; exceptions are not cached."""
        with self._lock:
            future = self._results.get(key)
            is_first = future is None
            if future is None:
                future = self._results[key] = Future()
                while len(self._results) > _KEPT:
                    self._results.popitem(last=False)
        # Outside of the lock, so that other problems are not blocked; callers of the same key wait for the future.
        if is_first:
            try:
                future.set_result(find())
            except BaseException as error:
                with self._lock:
                    self._results.pop(key, None)
                future.set_exception(error)
        return future.result()


_cache: ResultCache[str | None] = ResultCache()


def require_sound(subject: Subject, checker: Checker) -> None:
    """Check that a problem's reference solution, if it has one, passes the problem's tests; cached.

    Raises `VerifierFailed` (`problem_refused`) if it fails them, and `SandboxError`.
    """
    fault = _cache.get((subject, checker.timeout_s), lambda: _fault(subject, checker))
    if fault:
        raise VerifierFailed("problem_refused", fault)


def _fault(subject: Subject, checker: Checker) -> str | None:
    if subject.reference is None:
        return None
    (outcome,) = checker.check([Case(subject.reference, subject.truth, secret=True)])
    return None if outcome.passed else f"the problem's own reference solution fails its tests ({outcome.reason})"
