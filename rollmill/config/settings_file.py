"""Read files of settings, YAML or JSON, with line numbers for messages about mistakes."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from rollmill.errors import InputError

_DEEPEST = 50
_OPTION_NAMES = """
    async-scheduling attention-backend block-size cpu-offload-gb data-parallel-size disable-log-requests
    disable-log-stats dtype enable-auto-tool-choice enable-chunked-prefill enable-expert-parallel enable-log-requests
    enable-lora enable-prefix-caching enable-sleep-mode enforce-eager gpu-memory-utilization kv-cache-dtype
    kv-cache-memory-bytes language-model-only limit-mm-per-prompt max-cpu-loras max-logprobs max-lora-rank max-loras
    max-model-len max-num-batched-tokens max-num-seqs max-parallel-loading-workers mm-processor-cache-gb
    no-async-scheduling no-enable-chunked-prefill no-enable-prefix-caching num-gpu-blocks-override optimization-level
    performance-mode pipeline-parallel-size quantization reasoning-parser scheduling-policy seed stream-interval
    swap-space tensor-parallel-size tool-call-parser
"""
_SERVER_OPTIONS = frozenset(f"--{name}" for name in _OPTION_NAMES.split())


class SettingsFile(NamedTuple):
    """The settings in a file, with their locations."""

    path: str
    settings: dict[str, Any]
    lines: dict[str, int]
    """Line of each setting in YAML, from 1; the names of nested ones are joined with dots. Empty for JSON."""
    written: Mapping[str, str] = {}
    """The name that the file uses for a setting, such as an alias, by the setting's own name; for messages."""

    def location(self, name: str) -> str:
        """Return the location of a setting, with which messages begin."""
        line = f" line {self.lines[name]}" if name in self.lines else ""
        return f"{self.path}{line}: {self.written.get(name, name)}"

    def refusal(self, error: ValidationError) -> str:
        """Return a one-line message on the first invalid setting."""
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")[:500]
        if not first["loc"]:
            return f"{self.path}: {message}"
        return f"{self.location(str(first['loc'][0]))}: {shown(first['input'])}: {message}"


def refuse_code(location: str, name: str, value: object, known: Collection[str]) -> None:
    """Raise `InputError` for a setting in a file that names code to run, such as `package.module:Name`.

    A file may come from anybody: it may only choose one of `known`. Users name their own code on the command line.

    Args:
        location: Location of the setting, see `SettingsFile.location`.
        name: Name of the setting, and of the flag in the message.
        value: Value of the setting.
        known: Names that a file may use.
    """
    if isinstance(value, str) and value not in known:
        raise InputError(
            f"{location}: {shown(value)}: a file may name {', '.join(known)} and no other code: give your own as "
            f"--{name} on the command line"
        )


def refuse_server_options(location: str, line: object) -> None:
    """Raise `InputError` for vLLM arguments in a file, except those that concern size and speed.

    Others load code (`--trust-remote-code`, `--worker-cls`, `--tool-parser-plugin`, ...) or read files.
    """
    try:
        words = shlex.split(line) if isinstance(line, str) else []
    except ValueError:
        return  # the parameter's validator reports unbalanced quotes
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if word.startswith("-") and not _is_number(word) and name not in _SERVER_OPTIONS:
            raise InputError(
                f"{location}: {shown(word)}: a file may set options of a server's size and speed, and no other: give "
                "it as --vllm_args on the command line"
            )


def _is_number(word: str) -> bool:
    return word.removeprefix("-").replace(".", "", 1).isdigit()


def shown(value: object) -> str:
    """Return a value for a message, shortened to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_settings_file(path: str) -> SettingsFile:
    """Read a file of settings: JSON if its name ends in `.json`, otherwise YAML. Raises `InputError` if it cannot."""
    try:
        text = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return _parse_json(path, text) if path.endswith(".json") else _parse_yaml(path, text)


def _parse_json(path: str, text: bytes) -> SettingsFile:
    from rollmill.files.rows import (  # late: it imports readers that a command line without a file does not need
        BadRow,
        parse_line,
    )

    settings = parse_line(1, text)
    if isinstance(settings, BadRow):
        raise InputError(f"{path}: {settings.reason}")
    if _is_deeper(settings, _DEEPEST):
        raise InputError(f"{path}: it nests more than {_DEEPEST} levels deep: settings do not")
    return SettingsFile(path, settings, {})


def _is_deeper(value: Any, most: int) -> bool:
    parts: Collection[Any] = ()
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list):
        parts = value
    return most == 0 or any(_is_deeper(part, most - 1) for part in parts)


def _parse_yaml(path: str, text: bytes) -> SettingsFile:
    from rollmill.files.bounded_yaml import BadYamlError, read_yaml

    try:
        document = read_yaml(text)
    except BadYamlError as error:
        where = f" line {error.line}" if error.line else ""
        raise InputError(f"{path}{where}: {error}") from error
    if not isinstance(document.value, dict):
        raise InputError(f"{path}: expected parameters, as in `temperature: 0.7`, but there are none")
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
