"""How flows and tasks end: a mistake or an outside failure is a failed state with its one line, not a traceback."""

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
    """Turn a `RollmillError` of the function under `@flow` or `@task` into a failed state with the error's message.

    Tasks are then to be submitted: Prefect hands a state that a task returns to a direct caller as it is, unraised.
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
    """Return the error that the user should read; None for a bug, which keeps its traceback."""
    if isinstance(error, RollmillError):
        return error
    return file_error(error) if isinstance(error, OSError) else None
