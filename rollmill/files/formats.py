"""Detect the format of a file of rows by its name and, where that is not enough, by its beginning."""

from __future__ import annotations

import re
from typing import Any, Literal

from rollmill.files.io import open_binary
from rollmill.files.raw_row import BYTE_ORDER_MARK, LIST_KEYS
from rollmill.files.rows import parse_json, parse_line

Kind = Literal["lines", "document", "documents", "parquet", "zip"]
"""`lines`: JSON Lines. `document`: JSON with the rows in an array. `documents`: one or more JSON documents after one
another, each a row. `zip`: a zip file of JSON files, each a row."""

COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_SUFFIXES: dict[str, Kind] = {".jsonl": "lines", ".ndjson": "lines", ".json": "document", ".parquet": "parquet"}
SUFFIXES = tuple(_SUFFIXES)
_BEGINNING = 1 << 20
_ZIP, _PARQUET = b"PK\x03\x04", b"PAR1"
_NO_JSON = object()
_ROLLOUT_KEYS = frozenset({"instance_id", "messages", "completion"})
_PRETTY = re.compile(rb'\[[\s\[{]*[\r\n]|\{\s*[\r\n]\s*["}]')
"""The beginning of JSON on several lines: brackets and a line end, in an object followed by a key."""


def kind_by_name(path: str) -> Kind | None:
    """Return the kind by the suffix of a name or URL, compressed or not; None for other suffixes."""
    name = path.lower().split("?", 1)[0] if "://" in path else path.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def file_kind(path: str) -> Kind | None:
    """Return the kind by name, except that a `.json` file with JSON Lines in it is `lines`.

    Raises `InputError` where the beginning of a `.json` file cannot be read.
    """
    kind = kind_by_name(path)
    return "lines" if kind == "document" and _has_lines(path) else kind


def _has_lines(path: str) -> bool:
    """Return whether the first line is a complete object which more lines follow, or which has no array of rows."""
    with open_binary(path) as file:
        first, _, more = file.read(_BEGINNING).removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")
    value = parse_line(1, first)
    return isinstance(value, dict) and (
        bool(more.strip()) or not any(isinstance(value.get(key), list) for key in LIST_KEYS)
    )


def content_kind(path: str, named: Kind | None) -> Kind | None:
    """Return the kind by the content; None for an unknown one.

    `named` is the kind by the name, which is returned where the content does not contradict it. Raises `InputError`
    where the beginning of the file cannot be read.
    """
    with open_binary(path) as file:
        head = file.read(_BEGINNING)
    if head.startswith(_ZIP):
        return "zip"
    if head.startswith(_PARQUET):
        return "parquet"
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if text[:1] not in (b"{", b"["):
        return named
    first, line_end, more = text.partition(b"\n")
    if not line_end and len(head) == _BEGINNING and named == "lines":
        return named  # the first row is longer than what was read
    kind = _kind_of_lines(_parse(first), more, named)
    if kind is None and named == "lines" and not _PRETTY.match(text):
        return named  # JSON Lines with an invalid first row
    return kind or ("document" if _has_rows(path) else "documents")


def _kind_of_lines(value: Any, more: bytes, named: Kind | None) -> Kind | None:
    """Return the kind of a file by the parsed first line; None where that is not JSON by itself.

    An object with an array under one of `LIST_KEYS` is a document, but not in a file named as JSON Lines if it has the
    keys of a rollout.
    """
    if value is _NO_JSON:
        return None
    if more.strip() or not isinstance(value, dict | list):
        return "lines"
    if isinstance(value, list):
        return "document"
    if named == "lines" and not _ROLLOUT_KEYS.isdisjoint(value):
        return "lines"
    return "document" if any(isinstance(value.get(key), list) for key in LIST_KEYS) else "lines"


def _parse(line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return _NO_JSON


def _has_rows(path: str) -> bool:
    from rollmill.files.json_array import JsonArray  # late: it imports numpy

    with open_binary(path) as file:
        return JsonArray(file).has_rows()
