"""Lock that keeps a run to one worker: that of a killed run may still be ending when the run is resumed."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from rollmill.errors import InputError

_LONGEST_S = 60.0


def lock_until_exit(path: Path) -> None:
    """Lock the run until this process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), fcntl.LOCK_EX)  # never closed


def wait_until_free(path: Path, longest_s: float = _LONGEST_S) -> None:
    """Wait until no worker holds the lock. Raises `InputError` where one still does after `longest_s` seconds."""
    if not path.exists():
        return
    deadline = time.monotonic() + longest_s
    file = os.open(path, os.O_RDWR)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InputError(
                        f"a worker of an earlier run still holds {path} after {longest_s:g} s: end it first"
                    ) from None
                time.sleep(0.1)
            else:
                return
    finally:
        os.close(file)
