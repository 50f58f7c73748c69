"""One worker on one run: what an owner that was killed left may still be ending when the next owner comes."""

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
    """Return when no worker holds the run. Raises `InputError` where one does not end."""
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
