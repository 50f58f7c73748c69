"""Handles SIGINT and SIGTERM within Prefect, whose own SIGTERM handler raises anywhere in the main thread."""

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
def note_signals() -> Iterator[None]:
    """Make Prefect's flow engine install our handler, which only records the signal, instead of its own.

    The engine recognizes a worker's cancellation by comparing the installed handler with its own by identity. Therefore
    it is replaced in the module that defines it.
    """
    before = engine._prefect_sigterm_handler
    engine._prefect_sigterm_handler = note  # type: ignore[assignment]
    try:
        yield
    finally:
        engine._prefect_sigterm_handler = before


@contextmanager
def interruptible_flow() -> Iterator[None]:
    """Make the body of a flow interruptible, in whatever process it runs; no effect in a task.

    In a command, all of which is `interruptible`, raises `Interrupted` if a signal arrived before. In the process of a
    deployment's run, or of a program that calls the flow, SIGTERM is recorded, and raised at the main thread's next
    `look` as the `TerminationSignal` that the flow engine handles.
    """
    if FlowRunContext.get() is None or not in_main_thread():
        yield
        return
    if in_command():
        look(again=True)
        yield
        return
    try:
        with note_signals(), terminable("rollmill"):
            yield
    except Interrupted as error:
        raise TerminationSignal(signal=error.number) from None


def result_of(future: PrefectFuture[R]) -> R:
    """Wait for a task on a thread of this process, checking for interruptions; return its result or raise its error."""
    wait_for(cast("PrefectConcurrentFuture[R]", future).wrapped_future)
    return future.result()
