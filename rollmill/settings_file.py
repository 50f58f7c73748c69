"""A file of settings, YAML or JSON: what it says, and where, for one line about every mistake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from rollmill.errors import InputError
from rollmill.files.rows import BadRow, parse_line

_DEEPEST = 50


class SettingsFile(NamedTuple):
    """What a file says."""

    path: str
    settings: dict[str, Any]
    lines: dict[str, int]
    """Of YAML, the line of each setting; nested ones by their names joined with dots."""

    def place(self, name: str) -> str:
        """Where a setting stands: the beginning of a message."""
        line = f" line {self.lines[name]}" if name in self.lines else ""
        return f"{self.path}{line}: {name}"

    def refusal(self, error: ValidationError) -> str:
        """What is wrong with the settings, in one line."""
        first = error.errors(include_url=False)[0]
        said = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            return f"{self.path}: {said}"
        return f"{self.place(str(first['loc'][0]))}: {shown(first['input'])}: {said}"


def shown(value: object) -> str:
    """A value as a message shows it."""
    found = repr(value)
    return found if len(found) <= 80 else f"{found[:77]}..."


def read_settings_file(path: str) -> SettingsFile:
    """The settings in a file, `.json` or else YAML. Raises `InputError` where it cannot be read or is no mapping."""
    try:
        text = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return _parse_json(path, text) if path.endswith(".json") else _parse_yaml(path, text)


def _parse_json(path: str, text: bytes) -> SettingsFile:
    found = parse_line(1, text)
    if isinstance(found, BadRow):
        raise InputError(f"{path}: {found.reason}")
    if _is_deeper(found, _DEEPEST):
        raise InputError(f"{path}: it nests more than {_DEEPEST} deep: settings do not")
    return SettingsFile(path, found, {})


def _is_deeper(value: Any, most: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most == 0 or any(_is_deeper(part, most - 1) for part in parts)


def _parse_yaml(path: str, text: bytes) -> SettingsFile:
    from rollmill.files.bounded_yaml import BadYamlError, read_yaml

    try:
        document = read_yaml(text)
    except BadYamlError as error:
        where = f" line {error.line}" if error.line else ""
        raise InputError(f"{path}{where}: {error}") from error
    if not isinstance(document.value, dict):
        raise InputError(f"{path}: expected parameters, as in `temperature: 0.7`, found none")
    lines: dict[str, int] = {}
    for name, line in _names(document.node, "", type(document.node)):
        if name in lines:
            raise InputError(f"{path} line {line}: {name}: is given twice")
        lines[name] = line
    return SettingsFile(path, document.value, lines)


def _names(node: Any, above: str, mapping: type) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        name = f"{above}{key.value}"
        yield name, key.start_mark.line + 1
        if isinstance(value, mapping):
            yield from _names(value, f"{name}.", mapping)
