"""Reads the file of a `--feed`: parameters of the flow that generates its rows.

Errors are one line with the file and the line in it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from rollmill.config.parameter import alias_names
from rollmill.config.settings_file import SettingsFile, read_settings_file, refuse_code, refuse_server_options
from rollmill.errors import InputError

Settings = dict[str, Any]
"""Parameters of a generating flow that the user has set."""


def read_settings(
    path: str,
    *,
    model: type[BaseModel],
    set_by_loop: Collection[str],
    verifiers: Collection[str],
    check: Callable[[Settings], object],
) -> Settings:
    """Read the parameters in a file, YAML or JSON; `-` and `_` in their names are equivalent.

    Args:
        path: The file.
        model: The flow's parameters; the file may use their aliases, too.
        set_by_loop: Parameters that the loop sets, and the file must not.
        verifiers: Verifiers that the file may name.
        check: Validates the settings together with those that the loop sets, which `model` alone would miss. Raises
            pydantic's `ValidationError`.

    Raises `InputError` where the file cannot be read or is no mapping, and for a parameter that is unknown, set by the
    loop, wrong, or would run code.
    """
    known, aliases = model.model_fields, alias_names(model)
    file = _canonical_names(read_settings_file(path), aliases)
    for key in file.settings:
        if key in set_by_loop:
            raise InputError(f"{file.location(key)}: is set by the loop; leave it out")
        if key not in known:
            close = difflib.get_close_matches(key, {*known, *aliases} - set(set_by_loop), n=1)
            raise InputError(f"{file.location(key)}: no such parameter{f'; did you mean {close[0]}?' if close else ''}")
        # Files may come from others: they must not name code to run, nor options that make vLLM run code.
        if key == "verifier":
            refuse_code(file.location(key), key, file.settings[key], verifiers)
        elif key == "vllm_args":
            refuse_server_options(file.location(key), file.settings[key])
    try:
        check(file.settings)
    except ValidationError as error:
        raise InputError(file.refusal(error)) from error
    return file.settings


def _canonical_names(file: SettingsFile, aliases: Mapping[str, str]) -> SettingsFile:
    """Return the file's settings and their locations by the parameters' own names, in place of aliases."""

    def canonical(key: object) -> str:
        name = str(key).replace("-", "_")
        return aliases.get(name, name)

    settings: Settings = {}
    for key, value in file.settings.items():
        name = canonical(key)
        if name in settings:
            raise InputError(f"{file.location(str(key))}: is given twice")
        settings[name] = value
    return file._replace(
        settings=settings,
        lines={canonical(key): line for key, line in file.lines.items()},
        # Messages show the name that the user gave, for example an alias, spelled as on the command line.
        written={canonical(key): str(key).replace("-", "_") for key in file.settings},
    )
