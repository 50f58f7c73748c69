"""Names that a user gives to runs, and so to files, folders and served models: what they may hold."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator

from rollmill.viewing.escapes import visible

LONGEST_NAME = 200
"""Bytes of one name of a file or folder. Systems take 255, and something is put around most."""
LONGEST_PATH = 3000
"""Bytes of a whole path. Linux takes 4096."""

_JOINERS = "\u200c\u200d"  # letters of some scripts, and emoji, need them


def check_path(path: str) -> str:
    """Return a path to be written to. Raises `ValueError` for one that would not show as it is, or is too long."""
    hidden = next((sign for sign in path if _is_hidden(sign)), None)
    if hidden is not None:
        raise ValueError(f"holds {hidden!a}, which would not show: give a name without it")
    longest = max(path.split("/"), key=_bytes)
    if _bytes(longest) > LONGEST_NAME:
        raise ValueError(f"a name in it has {_bytes(longest):,} bytes: give one of at most {LONGEST_NAME}")
    if _bytes(path) > LONGEST_PATH:
        raise ValueError(f"has {_bytes(path):,} bytes: give a path of at most {LONGEST_PATH:,}")
    return path


def check_run_name(name: str) -> str:
    """Return a run's name, which may have folders in it. Raises `ValueError` as `check_path`, and for no name."""
    if not name.strip() or name != name.strip() or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("cannot be the name of a folder")
    if _bytes(name) > LONGEST_NAME:  # a log's name has all of it
        raise ValueError(f"has {_bytes(name):,} bytes: give a name of at most {LONGEST_NAME}")
    return check_path(name)


NewPath = Annotated[str, AfterValidator(check_path)]
"""A file or folder that a job writes."""

ModelPath = Annotated[str, AfterValidator(check_path)]
"""A model's directory or hub id, or the name under which a server has it."""

RunName = Annotated[str, AfterValidator(check_run_name)]
"""The name of a run, of its folder and of the model that is served for it."""


def _is_hidden(sign: str) -> bool:
    return (
        visible(sign) != sign
        or sign in "\t\n"
        or (unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") and sign not in _JOINERS)
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
