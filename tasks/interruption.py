"""Interruptions within Prefect, whose own handler of SIGTERM raises at whatever place the main thread is at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.utilities import engine

from rollmill.terminal.interruption import Interrupted, in_command, in_main_thread, look, note, terminable, wait_for

R = TypeVar("R")


@contextmanager
def signals_noted() -> Iterator[None]:
    """Let Prefect's flow engine install our handler, which only notes the signal, in place of its own.

    The engine compares by identity whether its handler is installed, and tells a worker that cancels so. Therefore it
    is replaced where it is defined.
    """
    before = engine._prefect_sigterm_handler
    engine._prefect_sigterm_handler = note  # type: ignore[assignment]
    try:
        yield
    finally:
        engine._prefect_sigterm_handler = before


@contextmanager
def interruptible_flow() -> Iterator[None]:
    """Make the body of a flow interruptible, in whatever process it runs; for a task this changes nothing.

    In a command, which is `interruptible` as a whole, raises `Interrupted` where a signal came before. In the process
    of a deployment's run, or of a program that calls the flow, SIGTERM is noted, and raised where the main thread looks
    at it, as the `TerminationSignal` that the flow engine knows.
    """
    if FlowRunContext.get() is None or not in_main_thread():
        yield
        return
    if in_command():
        look(again=True)
        yield
        return
    try:
        with signals_noted(), terminable("rollmill"):
            yield
    except Interrupted as error:
        raise TerminationSignal(signal=error.number) from None


def result_of(future: PrefectFuture[R]) -> R:
    """Return the result of a task on a thread of this process, or raise its error; look for interruptions meanwhile."""
    wait_for(cast("PrefectConcurrentFuture[R]", future).wrapped_future)
    return future.result()
