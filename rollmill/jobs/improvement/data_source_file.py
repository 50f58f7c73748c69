"""A feed's file: the parameters of a generating flow, every mistake one line with its place."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import Any

from pydantic import ValidationError

from rollmill.config.settings_file import SettingsFile, read_settings_file, refuse_code, refuse_server_options
from rollmill.errors import InputError

Settings = dict[str, Any]
"""Parameters of a generating flow, those that a user has given."""


def read_settings(
    path: str,
    *,
    known: Collection[str],
    decided: Collection[str],
    verifiers: Collection[str],
    check: Callable[[Settings], object],
) -> Settings:
    """The parameters in a file, YAML or JSON; `-` and `_` in their names are alike.

    `known`: their names. `decided`: those that the loop sets. `verifiers`: those that it may name. `check` raises
    pydantic's `ValidationError`. Raises `InputError` where the file cannot be read, is no mapping, or a parameter is
    unknown, the loop's, wrong, or would run code.
    """
    file = _with_underscores(read_settings_file(path))
    for key in file.settings:
        if key in decided:
            raise InputError(f"{file.place(key)}: the loop sets it: leave it out")
        if key not in known:
            close = difflib.get_close_matches(key, set(known) - set(decided), n=1)
            raise InputError(f"{file.place(key)}: no such parameter{f'; did you mean {close[0]}?' if close else ''}")
        if key == "verifier":
            refuse_code(file.place(key), key, file.settings[key], verifiers)
        elif key == "vllm_args":
            refuse_server_options(file.place(key), file.settings[key])
    try:
        check(file.settings)
    except ValidationError as error:
        raise InputError(file.refusal(error)) from error
    return file.settings


def _with_underscores(file: SettingsFile) -> SettingsFile:
    settings: Settings = {}
    for key, value in file.settings.items():
        name = str(key).replace("-", "_")
        if name in settings:
            raise InputError(f"{file.place(str(key))}: is given twice")
        settings[name] = value
    return file._replace(settings=settings, lines={key.replace("-", "_"): line for key, line in file.lines.items()})
