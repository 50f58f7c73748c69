"""Settings of environments that name files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel

from rollmill.files.remote import is_remote

_NAMES_A_FILE = "names a file"

PathText = Annotated[str, _NAMES_A_FILE]
"""A setting that may name a file or a folder, or a URL, or nothing."""


def absolute_paths(settings: BaseModel) -> dict[str, str]:
    """The settings that name files or folders here, with absolute paths.

    Those are all whose value is a `Path`, and those that are declared as `PathText`.
    """
    found = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        named = _NAMES_A_FILE in field.metadata and value and not is_remote(value)
        if named or isinstance(value, Path):
            found[name] = str(Path(value).expanduser().absolute())
    return found
