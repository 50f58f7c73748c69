"""Checks of names and paths that users give: of runs, files, folders and models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from rollmill.terminal.escapes import hidden_sign

LONGEST_NAME = 200
"""Bytes of the name of a new file or folder. File systems allow 255, but most names get a prefix or suffix."""
LONGEST_EXISTING_NAME = 255
"""Bytes of the name of an existing file or folder."""
LONGEST_PATH = 3000
"""Bytes of a complete path. Linux allows 4096."""


def check_model_path(path: str) -> str:
    """Return a path, or the name of a model. Raises `ValueError` for invisible characters and for excessive length."""
    hidden = hidden_sign(path)
    if hidden is not None:
        raise ValueError(f"contains {hidden!a}, which is invisible: give a name without it")
    longest = max(path.split("/"), key=_bytes)
    if _bytes(longest) > LONGEST_EXISTING_NAME:  # no file system could look it up
        raise ValueError(f"a name in it has {_bytes(longest):,} bytes: give one of at most {LONGEST_EXISTING_NAME}")
    if _bytes(path) > LONGEST_PATH:
        raise ValueError(f"has {_bytes(path):,} bytes: give a path of at most {LONGEST_PATH:,}")
    return path


def check_path(path: str) -> str:
    """Return a path to write to. Raises `ValueError` as `check_model_path` does, and for a new name that is too long.

    Existing names may be longer, since older versions did not limit them.
    """
    parts = check_model_path(path).split("/")
    for number, part in enumerate(parts, 1):
        if _bytes(part) > LONGEST_NAME and "://" not in path and not os.path.lexists("/".join(parts[:number])):
            raise ValueError(f"a new name in it has {_bytes(part):,} bytes: give one of at most {LONGEST_NAME}")
    return path


def check_run_name(name: str) -> str:
    """Return a run's name, which may contain folders. Raises `ValueError` as `check_model_path`, and if empty."""
    if not name.strip() or name != name.strip() or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("cannot be the name of a folder")
    if _bytes(name) > LONGEST_EXISTING_NAME:
        raise ValueError(f"has {_bytes(name):,} bytes: give a name of at most {LONGEST_NAME}")
    return check_model_path(name)


def check_new_run(name: str, directory: Path) -> None:
    """Raise `ValueError` for a run's name that is too long, unless the run exists already."""
    if _bytes(name) > LONGEST_NAME and not os.path.lexists(directory / name):  # the log's name contains all of it
        raise ValueError(f"a new run's name has {_bytes(name):,} bytes: give one of at most {LONGEST_NAME}")


NewPath = Annotated[str, AfterValidator(check_path)]
"""A file or folder that a job writes."""

ModelPath = Annotated[str, AfterValidator(check_model_path)]
"""A model's directory or hub id, or its name on a server."""

RunName = Annotated[str, AfterValidator(check_run_name)]
"""The name of a run, which is also that of its folder and of its model on the server: see `check_new_run`."""


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
