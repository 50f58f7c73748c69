"""The one reader of JSON and JSON Lines, streaming, local or remote, plain or compressed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import orjson

from rollmill.errors import InputError
from rollmill.files.io import open_binary
from rollmill.files.raw_row import BYTE_ORDER_MARK, LARGEST_ROW, RawRow
from rollmill.terminal.interruption import look

Row = dict[str, Any]


class BadRow(NamedTuple):
    """A row that cannot be used. `number` is 1-based: the line of a JSON Lines file, the position anywhere else."""

    number: int
    field: str | None
    reason: str
    raw: str
    """The beginning of what stood there."""

    def to_json(self) -> Row:
        """Return one line of a quarantine file."""
        return {"row": self.number, "field": self.field, "reason": self.reason, "raw": self.raw[:2000]}


def dump_line(value: object) -> bytes:
    """Return one line of JSON, newline included; floats that are not finite become null.

    Raises `TypeError` (orjson's) for what JSON in UTF-8 cannot hold, such as a lone surrogate.
    """
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def parse_line(number: int, line: bytes) -> Row | BadRow:
    """Return the object on one line, or why there is none; NaN and Infinity, which Python's `json` writes, are read."""
    if not line:
        return BadRow(number, None, "nothing stands here: the document is cut off, or has a comma too many", "")
    try:
        value = parse_json(line)
    except ValueError as error:
        return BadRow(number, None, f"not valid JSON in UTF-8: {error}", _shown(line))
    if isinstance(value, dict):
        return value
    return BadRow(number, None, f"expected a JSON object, found {type(value).__name__}", _shown(line))


def parse_json(text: bytes) -> Any:
    """Return what is written as JSON, NaN and Infinity as Python's `json` writes them. Raises `ValueError`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        value = _parse_with_constants(text)
        if value is None:
            raise
        return value


def raw_json_lines(path: str, *, offset: int = 0, lines: int = 0) -> Iterator[RawRow]:
    """Yield every line that is not blank, its end included; from `offset` on, which `lines` lines stand before.

    Raises `InputError` where the file cannot be read, or a line is longer than `LARGEST_ROW`.
    """
    with open_binary(path) as file:
        if offset:
            file.seek(offset)
        for number, line in enumerate(iter(partial(file.readline, LARGEST_ROW + 1), b""), start=lines + 1):
            look()
            if len(line) > LARGEST_ROW:
                raise InputError(
                    f"{path} line {number} has more than {LARGEST_ROW:,} bytes, which are not read: "
                    "give each row a line, and large files as paths"
                )
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if text and not text.isspace():
                yield RawRow(number, text, offset + len(line) - len(text))
            offset += len(line)


def raw_json_array(path: str, rest: Row | None = None) -> Iterator[RawRow]:
    """Yield every row of a document that is an array, or an object with one.

    What else the object holds goes into `rest`.

    Raises `InputError` where the file cannot be read or holds no such array; see `json_array.JsonArray`.
    """
    from rollmill.files.json_array import JsonArray  # it brings numpy

    with open_binary(path) as file:
        array = JsonArray(file)
        try:
            for row in array:
                look()
                yield row
        except ValueError as error:
            raise InputError(f"{path} cannot be read as a JSON document: {error}") from error
        if rest is not None:
            rest.update(array.rest)


def raw_json_documents(path: str) -> Iterator[RawRow]:
    """Yield every document of a file that holds several, one behind the other, or one.

    Raises `InputError` where the file cannot be read, or a document has more than `LARGEST_ROW` bytes.
    """
    from rollmill.files.json_array import JsonDocuments  # it brings numpy

    with open_binary(path) as file:
        try:
            for row in JsonDocuments(file):
                look()
                yield row
        except ValueError as error:
            raise InputError(f"{path} cannot be read as JSON documents: {error}") from error


def read_json_lines(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (line number, row) for every line that is not blank.

    `path` is a local path or any fsspec URL; `.gz`, `.zst`, `.xz`, `.bz2` are read through.
    Raises `InputError` where the file cannot be opened or read.
    """
    for number, text, _ in raw_json_lines(path):
        yield number, parse_line(number, text)


def read_json(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (position, row) of a file that holds one JSON array, or an object with one under a usual key.

    The keys looked for are `LIST_KEYS`. Raises `InputError` where the file cannot be read or holds no such array.
    """
    for number, text, _ in raw_json_array(path):
        yield number, parse_line(number, text)


def _parse_with_constants(line: bytes) -> Any:
    """Return what stands on a line that is JSON but for NaN and Infinity; None where that is not the matter."""
    if b"NaN" not in line and b"Infinity" not in line:
        return None
    try:
        value = json.loads(line, parse_int=orjson.loads)  # integers as they are read elsewhere
        dump_line(value)  # which a lone surrogate has no place in
    except (ValueError, TypeError, RecursionError):
        return None
    return value


def _shown(line: bytes) -> str:
    return line[:2000].decode("utf-8", "backslashreplace").rstrip("\n")
