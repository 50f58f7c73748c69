"""Read rows of JSON and JSON Lines as a stream; local or remote, plain or compressed."""

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
MAX_EXCERPT = 2000
"""Length of the beginning of a bad row that is kept, in bytes or characters."""


class BadRow(NamedTuple):
    """A row that cannot be used, yielded in place of the row.

    `number`, from 1, is the line in JSON Lines and the position in other formats.
    """

    number: int
    field: str | None
    """The field that is wrong, or a code for the reason (`marked_not_for_training`); None: the row as a whole."""
    reason: str
    raw: str
    """The beginning of the row's text; of rows that other modules made, it may be longer than `MAX_EXCERPT`."""

    def to_json(self) -> Row:
        """Return the row of a quarantine file, as an object that can be encoded as JSON."""
        return {"row": self.number, "field": self.field, "reason": self.reason, "raw": self.raw[:MAX_EXCERPT]}


def dump_line(value: object) -> bytes:
    """Return one line of JSON, newline included; floats that are not finite become null.

    Raises `TypeError` (orjson's) for values that JSON in UTF-8 cannot represent, such as a lone surrogate.
    """
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def parse_line(number: int, line: bytes) -> Row | BadRow:
    """Return the JSON object on a line, or the reason why there is none; NaN and Infinity are accepted."""
    if not line:  # `JsonArray` yields an empty text where a row is missing
        return BadRow(number, None, "there is no row: the document is cut off, or has an extra comma", "")
    try:
        value = parse_json(line)
    except ValueError as error:
        return BadRow(number, None, f"not valid JSON in UTF-8: {error}", _excerpt(line))
    if isinstance(value, dict):
        return value
    return BadRow(number, None, f"expected a JSON object, found {type(value).__name__}", _excerpt(line))


def parse_json(text: bytes) -> Any:
    """Parse JSON, with NaN and Infinity as Python's `json` writes them. Raises `ValueError`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        value = _parse_with_constants(text)
        if value is None:
            raise
        return value


def raw_json_lines(path: str, *, offset: int = 0, lines_before: int = 0) -> Iterator[RawRow]:
    """Yield every line that is not blank, with its line end, from byte `offset` on.

    Lines are numbered from `lines_before` + 1: the number of lines before `offset`, which are not read.
    Raises `InputError` where the file cannot be read, or a line is longer than `LARGEST_ROW`.
    """
    with open_binary(path) as file:
        if offset:
            file.seek(offset)
        for number, line in enumerate(iter(partial(file.readline, LARGEST_ROW + 1), b""), start=lines_before + 1):
            look()
            if len(line) > LARGEST_ROW:
                raise InputError(
                    f"{path} line {number} has more than {LARGEST_ROW:,} bytes, the limit of a row: "
                    "write one row per line, and refer to large files by path"
                )
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if text and not text.isspace():
                yield RawRow(number, text, offset + len(line) - len(text))  # behind the byte order mark
            offset += len(line)


def raw_json_array(path: str, rest: Row | None = None) -> Iterator[RawRow]:
    """Yield every row of a document that is an array, or an object that has one under a key of `raw_row.LIST_KEYS`.

    The object's other keys are added to `rest` at the end. Raises `InputError` where the file cannot be read or has no
    such array; see `json_array.JsonArray`.
    """
    from rollmill.files.json_array import JsonArray  # late: it imports numpy, which takes 0.1 s

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
    """Yield every document of a file of one or more concatenated documents.

    Raises `InputError` where the file cannot be read, or a document has more than `LARGEST_ROW` bytes.
    """
    from rollmill.files.json_array import JsonDocuments  # late: it imports numpy, which takes 0.1 s

    with open_binary(path) as file:
        try:
            for row in JsonDocuments(file):
                look()
                yield row
        except ValueError as error:
            raise InputError(f"{path} cannot be read as JSON documents: {error}") from error


def read_json_lines(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (line number, row) for every line that is not blank.

    `path` is a local path or any fsspec URL; `.gz`, `.zst`, `.xz`, `.bz2` are decompressed.
    Raises `InputError` where the file cannot be opened or read.
    """
    for number, text, _ in raw_json_lines(path):
        yield number, parse_line(number, text)


def read_json(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (position, row) of a file that holds one JSON array, or an object that has one.

    The keys looked for are `raw_row.LIST_KEYS`. Raises `InputError` where the file cannot be read or has no such array.
    """
    for number, text, _ in raw_json_array(path):
        yield number, parse_line(number, text)


def _parse_with_constants(line: bytes) -> Any:
    """Return the value of a line that is JSON except for NaN and Infinity; None if it is invalid for other reasons."""
    if b"NaN" not in line and b"Infinity" not in line:
        return None
    try:
        value = json.loads(line, parse_int=orjson.loads)  # large integers become floats, as in orjson
        dump_line(value)  # raises for lone surrogates
    except (ValueError, TypeError, RecursionError):
        return None
    return value


def _excerpt(line: bytes) -> str:
    return line[:MAX_EXCERPT].decode("utf-8", "backslashreplace").rstrip("\n")
