"""One process on one run directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from rollmill.errors import InputError
from rollmill.rollouts.manifest import host, now

LOCK = ".lock"


@contextmanager
def lock_directory(directory: Path, *, flag: str = "--model_name") -> Iterator[None]:
    """Holds a run directory; the lock falls with the process, however that ends. `flag` names another directory.

    Raises `InputError` with the holder's process number and host when another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory} is in use by {_holder(path)}: wait for it, or give another {flag}") from None
        os.ftruncate(file, 0)
        os.pwrite(file, orjson.dumps({"pid": os.getpid(), "host": host(), "since": now()}), 0)
        yield
    finally:
        os.close(file)


def _holder(path: Path) -> str:
    try:
        holder = orjson.loads(path.read_bytes())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return "another process"
