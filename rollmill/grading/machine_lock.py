"""A lock among all processes of this machine, for work such as measuring that must run alone."""

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
"""Seconds that a process waits after its own turn, so that others get the lock first."""


class Turns:
    """A lock shared by all threads of all processes that use the same file; a process that dies releases it.

    The file is never removed: another process could lock a new file at the same path.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._closing = threading.Event()
        self._ended = -math.inf

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock for the block. Raises `SandboxError` of type `closed` after `close`."""
        with self._threads:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                with TimedStep(_LONGEST_WAIT_S):  # waiting for other processes is no stall of this one
                    self._wait(file)
                yield
            finally:
                self._ended = time.monotonic()
                os.close(file)

    def close(self) -> None:
        """Fail all threads that wait for the lock."""
        self._closing.set()

    def _wait(self, file: int) -> None:
        # Polls, since `close` could not wake a thread that is blocked in flock.
        pause = max(0.0, self._ended + _AFTER_OWN_S - time.monotonic())
        while not self._closing.wait(pause):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pause = _LOOK_S
            else:
                return
        raise SandboxError("grading ended before this change was measured", type_="closed")
