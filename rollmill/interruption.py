"""Ctrl-C, also where a library has caught it and given it back as a failure of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


@contextmanager
def interruptions_noted() -> Iterator[None]:
    """Within the block of a main thread, `interrupted` knows of Ctrl-C; `KeyboardInterrupt` is raised as ever.

    Changes nothing in another thread, or where somebody handles SIGINT already.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _asked.clear()
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _asked.clear()


def interrupted() -> bool:
    """Whether an error in the main thread can be what a library made of Ctrl-C: pydantic's serializer does that."""
    return _asked.is_set() and _in_main_thread()


def _note(number: int, frame: FrameType | None) -> None:
    _asked.set()
    signal.default_int_handler(number, frame)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
