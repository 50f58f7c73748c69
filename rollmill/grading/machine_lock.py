"""Turns: what one process of this machine does at a time, such as measuring."""

from __future__ import annotations

import fcntl
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollmill.sandboxes.sandbox import SandboxError
from rollmill.terminal.stall_watch import TimedStep

_LOOK_S = 0.05
_LONGEST_WAIT_S = 7200.0
_AFTER_OWN_S = 2 * _LOOK_S
"""A process that had its turn lets others look first."""


class Turns:
    """Turns of all threads of all processes that name the same file, which stays; one that dies leaves its turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._closing = threading.Event()
        self._ended = -math.inf

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and have it for the time of the block. After `close`: `SandboxError`, of type `closed`."""
        with self._threads:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                with TimedStep(_LONGEST_WAIT_S):  # that others have their turns is no stall of this process
                    self._wait(file)
                yield
            finally:
                self._ended = time.monotonic()
                os.close(file)

    def close(self) -> None:
        """Who waits for a turn gets none."""
        self._closing.set()

    def _wait(self, file: int) -> None:
        # Asking again and again, since a thread that the lock puts to sleep could not be woken by `close`.
        pause = max(0.0, self._ended + _AFTER_OWN_S - time.monotonic())
        while not self._closing.wait(pause):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pause = _LOOK_S
            else:
                return
        raise SandboxError("grading ended before this change was measured", type_="closed")
