"""Handling of SIGINT and SIGTERM: handlers only record a signal, and the main thread raises it at safe points.

A signal handler may run between any two bytecodes of the main thread: an exception raised there can leave a lock
acquired forever, such as that of `logging`. So the handler of a command only records the signal. The main thread checks
wherever it waits (`look`, `result_of`), and raises it there. A process that hangs nevertheless is ended by the guard
(see `guard`): 15 s after the first signal, or at the second one.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from rollmill.errors import RunStoppedError
from rollmill.terminal import guard
from rollmill.terminal.program import program_name
from rollmill.terminal.stall_watch import RUN_OF_DEPLOYMENT, watch

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

LOOK_S = 0.2
"""Seconds between two checks for signals while waiting."""
BOTH = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread when it finds that a signal was received."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class _State:
    prog = "rollmill"
    first: int | None = None
    """The first signal that was received."""
    raised = False
    """Whether `look` has raised it: the clean-up after that is not interrupted again."""
    command = False
    """Whether this process is a command within `interruptible`."""
    guard: _GuardProcess | None = None
    inherited: _GuardProcess | None = None
    """The guard of the process that forked this one."""


class _GuardProcess:
    """The guard of this process, see `guard`; processes that this one starts from now on carry its mark."""

    def __init__(self, prog: str, numbers: Sequence[int]) -> None:
        import subprocess

        mark = os.urandom(16).hex()
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        arguments = [str(os.getpid()), mark, prog, *(str(int(number)) for number in numbers)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *arguments],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                start_new_session=True,
            )
        finally:
            os.close(reading)
        self._outer = os.environ.get(guard.MARK)
        os.environ[guard.MARK] = f"{self._outer} {mark}" if self._outer else mark
        # Written by Python's C-level handler, which runs even when no Python thread can.
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)

    def dismiss(self) -> None:
        """End the guard, and stop marking processes."""
        signal.set_wakeup_fd(self._wakeup_before)
        with suppress(BrokenPipeError):
            os.write(self._writing, b"\0")
        os.close(self._writing)
        self._process.wait()
        if self._outer is None:
            del os.environ[guard.MARK]
        else:
            os.environ[guard.MARK] = self._outer


def leave_when_interrupted(prog: str) -> None:
    """Let signals end this process at once, with one line and the usual status (130 or 143).

    For the beginning of a command, while it only imports modules, for seconds; see `interruptible` for the rest.
    Until then garbage collection is off: it would take a sixth of the time, and imported modules are not garbage.
    """
    gc.disable()
    _State.prog, _State.first, _State.raised = program_name(prog), None, False
    for number in BOTH:
        signal.signal(number, _leave)


@contextmanager
def interruptible() -> Iterator[None]:
    """Record signals for `look` within the block, which is the main part of a command, and guard the process.

    Raises `Interrupted` at the end of the block at the latest.
    """
    imported = not gc.isenabled()
    if imported:
        gc.freeze()
        gc.enable()
    if _State.guard is None:
        _State.guard = _GuardProcess(_State.prog, BOTH)
    for number in BOTH:  # libraries may have installed their own handlers
        signal.signal(number, note)
    signal.signal(signal.SIGTSTP, watch.stop_process)
    _State.command = watch.ends_process = True
    try:
        yield
        look(again=True)
    finally:
        if imported:  # the command may import more before its next part
            gc.disable()
        _State.command = watch.ends_process = False
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        for number in BOTH:
            signal.signal(number, _leave)


@contextmanager
def terminable(prog: str) -> Iterator[None]:
    """Record SIGTERM for `look` within the block, and guard the process: for work in another program's process.

    Does nothing within `interruptible`, nor in a thread other than the main one.
    """
    if _State.guard is not None or not in_main_thread():
        yield
        return
    _State.first, _State.raised = None, False
    _State.guard = _GuardProcess(prog, [signal.SIGTERM])
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
        look(again=True)
    finally:
        signal.signal(signal.SIGTERM, before)
        # After a signal, the process of a deployment's run has to end, although its runner waits for tasks: keep the
        # guard.
        if _State.first is None or RUN_OF_DEPLOYMENT not in os.environ:
            _State.guard.dismiss()
            _State.guard, _State.first, _State.raised = None, None, False


def look(*, again: bool = False) -> None:
    """If a signal was received, raise `Interrupted` in the main thread, or `RunStoppedError` in another one.

    The main thread raises it only once, so that the clean-up is not interrupted, unless `again`.
    """
    if _State.first is None:
        return
    if not in_main_thread():
        raise RunStoppedError("the run was stopped; run the same command again to continue it")
    if again or not _State.raised:
        _State.raised = True
        raise Interrupted(_State.first)


def wait_for(future: Future[Any], *, limit_s: float = math.inf) -> None:
    """Wait for a future, checking for interruptions. Raises `TimeoutError` after `limit_s` seconds."""
    from concurrent.futures import wait

    end = time.monotonic() + limit_s
    while not wait([future], LOOK_S).done:
        look()
        if time.monotonic() > end:
            raise TimeoutError(f"no answer within {limit_s:g} s")


def call_within(limit_s: float, function: Callable[[], T]) -> T:
    """Call a function that may never return in a daemon thread; wait for its result, checking for interruptions.

    Raises `TimeoutError` after `limit_s` seconds; the thread is then abandoned, and does not keep the process alive.
    """
    from concurrent.futures import Future

    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    wait_for(future, limit_s=limit_s)
    return future.result()


def result_of(future: Future[T]) -> T:
    """Return a future's result, or raise its exception; check for interruptions while waiting."""
    wait_for(future)
    return future.result()


@contextmanager
def interruptions_noted() -> Iterator[None]:
    """Record Ctrl-C within the block, for `interrupted`; `KeyboardInterrupt` is raised as usual.

    Does nothing in a thread other than the main one, or where SIGINT has another handler.
    """
    if not in_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _State.first = None
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _State.first = None


def noted() -> bool:
    """Return whether a signal was received, for threads that must then end something themselves."""
    return _State.first is not None


def interrupted() -> bool:
    """Return whether an error in the main thread may be Ctrl-C, converted by a library such as Pydantic."""
    return _State.first is not None and in_main_thread()


def status(error: KeyboardInterrupt) -> int:
    """Return the exit status of an interruption."""
    return 128 + (error.number if isinstance(error, Interrupted) else _State.first or signal.SIGINT)


def note(number: int, frame: FrameType | None = None) -> None:
    """Record a signal; `look` raises it later."""
    if _State.first is None:
        _State.first = number


def in_command() -> bool:
    """Return whether this is the main thread of a command, within `interruptible`."""
    return _State.command and in_main_thread()


def in_main_thread() -> bool:
    """Return whether signals are handled in this thread."""
    return threading.current_thread() is threading.main_thread()


def _reset_in_child() -> None:
    """Reset signal handling in a forked child, which the parent's guard does not watch."""
    if _State.guard is None:
        return
    signal.set_wakeup_fd(-1)
    for number in BOTH:
        if signal.getsignal(number) in (note, _leave):
            signal.signal(number, signal.SIG_DFL)
    _State.inherited, _State.guard = _State.guard, None  # a reference, or Popen's finalizer would complain in the child
    _State.command, _State.first = False, None


os.register_at_fork(after_in_child=_reset_in_child)


def _raise(number: int, frame: FrameType | None) -> None:
    note(number)
    signal.default_int_handler(number, frame)


def _leave(number: int, frame: FrameType | None) -> None:
    if _State.first is None:  # otherwise the message has been written
        with suppress(OSError):
            os.write(2, f"\n{_State.prog}: stopped: run the same command again to continue\n".encode())
    os._exit(128 + number)
