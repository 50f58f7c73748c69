"""A file of settings, YAML or JSON: what it says, and where, for one line about every mistake."""

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
    """What a file says."""

    path: str
    settings: dict[str, Any]
    lines: dict[str, int]
    """Of YAML, the line of each setting; nested ones by their names joined with dots."""
    written: Mapping[str, str] = {}
    """Setting -> its name in the file, where that is an alias."""

    def location(self, name: str) -> str:
        """Return where a setting stands: the beginning of a message."""
        line = f" line {self.lines[name]}" if name in self.lines else ""
        return f"{self.path}{line}: {self.written.get(name, name)}"

    def refusal(self, error: ValidationError) -> str:
        """Return what is wrong with the settings, in one line."""
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")[:500]
        if not first["loc"]:
            return f"{self.path}: {message}"
        return f"{self.location(str(first['loc'][0]))}: {shown(first['input'])}: {message}"


def refuse_code(location: str, name: str, value: object, known: Collection[str]) -> None:
    """Refuse a setting of a file that names code to run, such as `package.module:Name`.

    A file may be anybody's: it names one of `known`; what runs the user's own code is named on the command line.
    Raises `InputError`.

    Args:
        location: Where the setting stands, see `SettingsFile.location`.
        name: The setting's.
        value: Its value.
        known: The names that a file may give.
    """
    if isinstance(value, str) and value not in known:
        raise InputError(
            f"{location}: {shown(value)}: a file names {', '.join(known)} and no other code: give what is your own as "
            f"--{name} on the command line"
        )


def refuse_server_options(location: str, line: object) -> None:
    """Refuse vLLM's arguments in a file, but for those that say how large and how fast.

    Others load code (`--trust-remote-code`, `--worker-cls`, `--tool-parser-plugin`, ...) or read files. Raises
    `InputError`.
    """
    try:
        words = shlex.split(line) if isinstance(line, str) else []
    except ValueError:
        return  # the parameter's own check says it
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if word.startswith("-") and not _is_number(word) and name not in _SERVER_OPTIONS:
            raise InputError(
                f"{location}: {shown(word)}: a file sets sizes and speed of a server, and no other option: give it as "
                "--vllm_args on the command line"
            )


def _is_number(word: str) -> bool:
    return word.removeprefix("-").replace(".", "", 1).isdigit()


def shown(value: object) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_settings_file(path: str) -> SettingsFile:
    """Read a file of settings, `.json` or else YAML. Raises `InputError` where it is unreadable or no mapping."""
    try:
        text = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return _parse_json(path, text) if path.endswith(".json") else _parse_yaml(path, text)


def _parse_json(path: str, text: bytes) -> SettingsFile:
    from rollmill.files.rows import (  # with what reads rows, which a command line without does not need
        BadRow,
        parse_line,
    )

    settings = parse_line(1, text)
    if isinstance(settings, BadRow):
        raise InputError(f"{path}: {settings.reason}")
    if _is_deeper(settings, _DEEPEST):
        raise InputError(f"{path}: it nests more than {_DEEPEST} deep: settings do not")
    return SettingsFile(path, settings, {})


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
