"""A feed's file: the parameters of a generating flow, as YAML or JSON, every mistake one line with its place."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from rollmill.errors import InputError
from rollmill.files.rows import BadRow, parse_line

Settings = dict[str, Any]
"""Parameters of a generating flow, those that a user has given."""


class _Document(NamedTuple):
    path: str
    settings: Settings
    lines: dict[str, int]
    """Of YAML, the line of each parameter."""

    def place(self, key: str) -> str:
        line = f" line {self.lines[key]}" if key in self.lines else ""
        return f"{self.path}{line}: {key}"


def read_settings(
    path: str, *, known: Collection[str], decided: Collection[str], check: Callable[[Settings], object]
) -> Settings:
    """The parameters in a file; `-` and `_` in their names are alike.

    `known`: their names. `decided`: those that the loop sets. `check` raises pydantic's `ValidationError`. Raises
    `InputError` where the file cannot be read, is no mapping, or a parameter is unknown, the loop's, or wrong.
    """
    document = _read(path)
    for key in document.settings:
        if key in decided:
            raise InputError(f"{document.place(key)}: the loop sets it: leave it out")
        if key not in known:
            close = difflib.get_close_matches(key, set(known) - set(decided), n=1)
            raise InputError(
                f"{document.place(key)}: no such parameter{f'; did you mean {close[0]}?' if close else ''}"
            )
    try:
        check(document.settings)
    except ValidationError as error:
        raise InputError(_said(document, error)) from error
    return document.settings


def _said(document: _Document, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return f"{document.path}: {first['msg'].removeprefix('Value error, ')}"
    found = repr(first["input"])
    shown = found if len(found) <= 80 else f"{found[:77]}..."
    return f"{document.place(str(first['loc'][0]))}: {shown}: {first['msg'].removeprefix('Value error, ')}"


def _read(path: str) -> _Document:
    try:
        text = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    settings, lines = _parse_json(path, text) if path.endswith(".json") else _parse_yaml(path, text)
    return _Document(path, {str(key).replace("-", "_"): value for key, value in settings.items()}, lines)


def _parse_json(path: str, text: bytes) -> tuple[Settings, dict[str, int]]:
    found = parse_line(1, text)
    if isinstance(found, BadRow):
        raise InputError(f"{path}: {found.reason}")
    return found, {}


def _parse_yaml(path: str, text: bytes) -> tuple[dict[Any, Any], dict[str, int]]:
    import yaml  # type: ignore[import-untyped]  # stubs are a package of their own

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{path}: expected parameters, as in `num_rollout: 8`, found none")
        names = [str(key.value).replace("-", "_") for key, _ in node.value]
        lines = {name: key.start_mark.line + 1 for name, (key, _) in zip(names, node.value, strict=True)}
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise InputError(f"{path} line {lines[twice]}: {twice}: is given twice")
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise InputError(f"{path}: not valid YAML in UTF-8: {error}") from error
