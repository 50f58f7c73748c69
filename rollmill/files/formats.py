"""What a file holds, by its name and, where that is not enough, its beginning."""

from __future__ import annotations

import re
from typing import Any, Literal

from rollmill.files.io import open_binary
from rollmill.files.raw_row import BYTE_ORDER_MARK, LIST_KEYS
from rollmill.files.rows import parse_json, parse_line

Kind = Literal["lines", "document", "documents", "parquet", "zip"]
"""`lines`: JSON Lines. `document`: JSON with the rows in an array. `documents`: JSON documents one behind the other,
each a row, or one. `zip`: JSON files packed together, each a row."""

COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_SUFFIXES: dict[str, Kind] = {".jsonl": "lines", ".ndjson": "lines", ".json": "document", ".parquet": "parquet"}
SUFFIXES = tuple(_SUFFIXES)
_BEGINNING = 1 << 20
_ZIP, _PARQUET = b"PK\x03\x04", b"PAR1"
_NO_JSON = object()
_OF_A_ROLLOUT = frozenset({"instance_id", "messages", "completion"})
_PRETTY = re.compile(rb'\[[\s\[{]*[\r\n]|\{\s*[\r\n]\s*["}]')
"""How JSON on several lines begins: with brackets and a line's end, and in an object then a key."""


def kind_by_name(path: str) -> Kind | None:
    """Return the kind that a name or URL promises, compressed or not; None for any other name."""
    name = path.lower().split("?", 1)[0] if "://" in path else path.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def file_kind(path: str) -> Kind | None:
    """Return the kind by name; a `.json` file that holds JSON Lines is `lines`.

    Raises `InputError` where the beginning of a `.json` file cannot be read.
    """
    kind = kind_by_name(path)
    return "lines" if kind == "document" and _holds_lines(path) else kind


def _holds_lines(path: str) -> bool:
    """Return whether the first line is an object by itself.

    Then something follows it, or it has no array of rows in it.
    """
    with open_binary(path) as file:
        first, _, more = file.read(_BEGINNING).removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")
    value = parse_line(1, first)
    return isinstance(value, dict) and (
        bool(more.strip()) or not any(isinstance(value.get(key), list) for key in LIST_KEYS)
    )


def content_kind(path: str, named: Kind | None) -> Kind | None:
    """Return the kind by the content, whatever the name; None where it is no kind that is known.

    `named` is what the name promises: it holds where the content does not tell otherwise. Raises `InputError` where the
    beginning of the file cannot be read.
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
        return named  # a row that is longer than what was read
    kind = _kind_of_lines(_parsed(first), more, named)
    if kind is None and named == "lines" and not _PRETTY.match(text):
        return named  # its first row is bad
    return kind or ("document" if _holds_rows(path) else "documents")


def _kind_of_lines(value: Any, more: bytes, named: Kind | None) -> Kind | None:
    """Return the kind of a file by its first line; None where that is no JSON by itself.

    An object with rows under a usual key is a document; in a file of lines it is one unless it is itself a rollout.
    """
    if value is _NO_JSON:
        return None
    if more.strip() or not isinstance(value, dict | list):
        return "lines"
    if isinstance(value, list):
        return "document"
    if named == "lines" and not _OF_A_ROLLOUT.isdisjoint(value):
        return "lines"
    return "document" if any(isinstance(value.get(key), list) for key in LIST_KEYS) else "lines"


def _parsed(line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return _NO_JSON


def _holds_rows(path: str) -> bool:
    from rollmill.files.json_array import JsonArray  # it brings numpy

    with open_binary(path) as file:
        return JsonArray(file).has_rows()
