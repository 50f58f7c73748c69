"""Processes of the judge: forking, protection from each other, and messages over pipes."""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import time
from collections.abc import Callable
from typing import Any

MOST_SHOWN = 300
"""Most characters of one value in a message."""
_MOST_BYTES = 1 << 24
"""Most bytes of one message."""
_PR_SET_DUMPABLE = 4
_MOST_FILES = 1024


class Pipe:
    """Two file descriptors, one to read and one to write. A message is its length in 8 bytes, then JSON."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes

    def send(self, value: Any) -> None:
        """Write a message. Raises `BrokenPipeError` where the reader has closed the pipe."""
        data = json.dumps(value).encode()
        data = len(data).to_bytes(8, "big") + data
        while data:
            data = data[os.write(self._writes, data) :]

    def receive(self, deadline: float | None = None) -> Any:
        """Return the next message. Raises `EOFError`, `TimeoutError`, another `Exception` for a malformed message."""
        size = int.from_bytes(self._read(8, deadline), "big")
        if size > _MOST_BYTES:
            raise ValueError(f"a message of {size} bytes")
        return json.loads(self._read(size, deadline))

    def _read(self, size: int, deadline: float | None) -> bytes:
        data = bytearray()
        while len(data) < size:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self._reads], [], [], left)[0]:
                    raise TimeoutError
            piece = os.read(self._reads, size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)


def fork(play: Callable[[], None], *files: int) -> int:
    """Fork a process that runs `play` with only `files` open; its standard streams are /dev/null."""
    pid = os.fork()
    if pid:
        return pid
    try:
        # Close all gaps between the descriptors that stay open.
        low = 3
        for file in sorted(files):
            os.closerange(low, file)
            low = file + 1
        os.closerange(low, _MOST_FILES)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nothing, standard)
        os.close(nothing)
        random.seed(0)  # verdicts must not depend on chance
        play()
    finally:
        os._exit(0)


def set_dumpable(dumpable: bool) -> None:
    """Allow or forbid processes of the same user to inspect this one by /proc or ptrace. Raises `OSError`."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def describe(value: Any) -> str:
    """Return a value, or an exception with its type, as one line; exceptions of its own methods are caught."""
    try:
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
        return truncated(" ".join(text.split()))
    except BaseException:
        return type(value).__name__


def truncated(text: str) -> str:
    """Return a text, truncated to `MOST_SHOWN` characters."""
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."
