"""Find the settings of environments that name files, and make their paths absolute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel

from rollmill.files.remote import is_remote

_NAMES_A_FILE = "names a file"

PathText = Annotated[str, _NAMES_A_FILE]
"""Type of a setting that may be the path of a file or folder, a URL, or empty."""


def absolute_paths(settings: BaseModel) -> dict[str, str]:
    """Return the settings that name local files or folders, with absolute paths.

    These are all settings with a `Path` as value, and those declared as `PathText`.
    """
    paths = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        named = _NAMES_A_FILE in field.metadata and value and not is_remote(value)
        if named or isinstance(value, Path):
            paths[name] = str(Path(value).expanduser().absolute())
    return paths
