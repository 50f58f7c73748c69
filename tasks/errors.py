"""Turns users' mistakes and outside failures into failed states with a one-line message instead of a traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect.client.schemas.objects import State, StateType
from prefect.logging import get_run_logger

from rollmill.errors import RollmillError, file_error
from rollmill.terminal.escapes import visible
from rollmill.terminal.interruption import interrupted, look
from tasks.interruption import interruptible_flow

P = ParamSpec("P")
R = TypeVar("R")


def report_failure(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a flow's or task's function so that a `RollmillError` becomes a failed state with the error's message.

    Submit such tasks rather than call them: Prefect returns the state to a direct caller without raising its error.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            with interruptible_flow():
                return function(*args, **kwargs)
        except Exception as error:
            if interrupted():
                look(again=True)
            failure = _failure(error)
            if failure is None:
                raise
        if failure.details:
            get_run_logger().error(visible(failure.details))
        return State(type=StateType.FAILED, message=visible(str(failure)), data=failure)

    return wrapped


def _failure(error: Exception) -> RollmillError | None:
    """Return the error to show to the user; None for a bug, which keeps its traceback."""
    if isinstance(error, RollmillError):
        return error
    return file_error(error) if isinstance(error, OSError) else None
