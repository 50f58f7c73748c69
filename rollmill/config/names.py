"""Names that a user gives to runs, and so to files, folders and served models: what they may hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from rollmill.terminal.escapes import hidden_sign

LONGEST_NAME = 200
"""Bytes of one name of a file or folder that is created. Systems take 255, and something is put around most."""
LONGEST_THERE = 255
"""Bytes of one that is there already, or is not ours to create."""
LONGEST_PATH = 3000
"""Bytes of a whole path. Linux takes 4096."""


def check_model_path(path: str) -> str:
    """Return the path or name of what others have made. Raises `ValueError` for one that would not show as it is."""
    hidden = hidden_sign(path)
    if hidden is not None:
        raise ValueError(f"holds {hidden!a}, which would not show: give a name without it")
    longest = max(path.split("/"), key=_bytes)
    if _bytes(longest) > LONGEST_THERE:  # no system could look for it
        raise ValueError(f"a name in it has {_bytes(longest):,} bytes: give one of at most {LONGEST_THERE}")
    if _bytes(path) > LONGEST_PATH:
        raise ValueError(f"has {_bytes(path):,} bytes: give a path of at most {LONGEST_PATH:,}")
    return path


def check_path(path: str) -> str:
    """Return a path to be written to. Raises `ValueError` as `check_model_path`, and for a new name that is too long.

    Older versions bounded no names: what they have written stays where it is.
    """
    parts = check_model_path(path).split("/")
    for number, part in enumerate(parts, 1):
        if _bytes(part) > LONGEST_NAME and "://" not in path and not os.path.lexists("/".join(parts[:number])):
            raise ValueError(f"a new name in it has {_bytes(part):,} bytes: give one of at most {LONGEST_NAME}")
    return path


def check_run_name(name: str) -> str:
    """Return a run's name, which may have folders in it. Raises `ValueError` as `check_model_path`, and for no name."""
    if not name.strip() or name != name.strip() or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("cannot be the name of a folder")
    if _bytes(name) > LONGEST_THERE:
        raise ValueError(f"has {_bytes(name):,} bytes: give a name of at most {LONGEST_NAME}")
    return check_model_path(name)


def check_new_run(name: str, directory: Path) -> None:
    """Raise `ValueError` for a run's name that is too long, unless the run is there already."""
    if _bytes(name) > LONGEST_NAME and not os.path.lexists(directory / name):  # a log's name has all of it
        raise ValueError(f"a new run's name has {_bytes(name):,} bytes: give one of at most {LONGEST_NAME}")


NewPath = Annotated[str, AfterValidator(check_path)]
"""A file or folder that a job writes."""

ModelPath = Annotated[str, AfterValidator(check_model_path)]
"""A model's directory or hub id, or the name under which a server has it."""

RunName = Annotated[str, AfterValidator(check_run_name)]
"""The name of a run, of its folder and of the model that is served for it: see `check_new_run`."""


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
