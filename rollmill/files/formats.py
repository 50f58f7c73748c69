"""What a file holds, by its name and, where that is not enough, its beginning."""

from __future__ import annotations

from typing import Literal

import orjson

from rollmill.files.io import open_binary
from rollmill.files.raw_row import BYTE_ORDER_MARK, LIST_KEYS

Kind = Literal["lines", "document", "parquet"]

COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_SUFFIXES: dict[str, Kind] = {".jsonl": "lines", ".ndjson": "lines", ".json": "document", ".parquet": "parquet"}
SUFFIXES = tuple(_SUFFIXES)
_BEGINNING = 1 << 20


def kind_by_name(path: str) -> Kind | None:
    """The kind that a name or URL promises, compressed or not; None for any other name."""
    name = path.lower().split("?", 1)[0] if "://" in path else path.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def file_kind(path: str) -> Kind | None:
    """The kind by name; a `.json` file that holds JSON Lines is `lines`.

    Raises `InputError` where the beginning of a `.json` file cannot be read.
    """
    kind = kind_by_name(path)
    return "lines" if kind == "document" and _holds_lines(path) else kind


def _holds_lines(path: str) -> bool:
    """Whether the first line is an object by itself: with something after it, or without an array of rows in it."""
    with open_binary(path) as file:
        first, _, more = file.read(_BEGINNING).removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")
    try:
        value = orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and (
        bool(more.strip()) or not any(isinstance(value.get(key), list) for key in LIST_KEYS)
    )
