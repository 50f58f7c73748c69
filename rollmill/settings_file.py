"""A file of settings, YAML or JSON: what it says, and where, for one line about every mistake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from rollmill.errors import InputError
from rollmill.files.rows import BadRow, parse_line


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
    return SettingsFile(path, found, {})


def _parse_yaml(path: str, text: bytes) -> SettingsFile:
    import yaml  # type: ignore[import-untyped]  # stubs are a package of their own

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{path}: expected parameters, as in `temperature: 0.7`, found none")
        lines: dict[str, int] = {}
        for name, line in _names(node, "", yaml.MappingNode):
            if name in lines:
                raise InputError(f"{path} line {line}: {name}: is given twice")
            lines[name] = line
        return SettingsFile(path, loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{where}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise InputError(f"{path}: not valid YAML in UTF-8: {error}") from error
    except RecursionError:
        raise InputError(f"{path}: a setting is part of itself: write it out") from None


def _names(node: Any, above: str, mapping: type) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        name = f"{above}{key.value}"
        yield name, key.start_mark.line + 1
        if isinstance(value, mapping):
            yield from _names(value, f"{name}.", mapping)
