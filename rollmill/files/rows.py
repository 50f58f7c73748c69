"""The one reader of JSON and JSON Lines, streaming, local or remote, plain or compressed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import fsspec
import fsspec.compression
import orjson

from rollmill.errors import InputError

Row = dict[str, Any]

_LIST_KEYS = ("examples", "data", "rows", "results", "problems")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _open_zstd(file: BinaryIO, mode: str = "rb") -> io.BufferedReader:
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


# fsspec knows .zst only where one of two optional packages is installed; without them it would hand out packed bytes.
if "zstd" not in fsspec.compression.compr:
    fsspec.compression.register_compression("zstd", _open_zstd, "zst")


class BadRow(NamedTuple):
    """A row that cannot be used. `number` is 1-based: the line of a JSON Lines file, the position anywhere else."""

    number: int
    field: str | None
    reason: str
    raw: str
    """The beginning of what stood there."""

    def to_json(self) -> Row:
        """One line of a quarantine file."""
        return {"row": self.number, "field": self.field, "reason": self.reason, "raw": self.raw[:2000]}


def dump_line(value: object) -> bytes:
    """One line of JSON, newline included; floats that are not finite become null.

    Raises `TypeError` (orjson's) for what JSON in UTF-8 cannot hold, such as a lone surrogate.
    """
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def parse_line(number: int, line: bytes) -> Row | BadRow:
    """The object on one line, or why there is none."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return BadRow(number, None, f"not valid JSON in UTF-8: {error}", _shown(line))
    if isinstance(value, dict):
        return value
    return BadRow(number, None, f"expected a JSON object, found {type(value).__name__}", _shown(line))


def read_json_lines(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yields (line number, row) for every line that is not blank.

    `path` is a local path or any fsspec URL; `.gz`, `.zst`, `.xz`, `.bz2` are read through.
    Raises `InputError` where the file cannot be opened or read.
    """
    try:
        with fsspec.open(path, "rb", compression="infer") as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
                if text.strip():
                    yield number, parse_line(number, text)
    except Exception as error:  # every file system and decompressor raises types of its own
        raise InputError(f"cannot read {path}: {error}") from error


def read_json(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yields (position, row) of a file that holds one JSON array, or an object with one under a usual key.

    The keys tried are `examples`, `data`, `rows`, `results`, `problems`. The file is read whole.
    Raises `InputError` where the file cannot be read or holds no such array.
    """
    try:
        with fsspec.open(path, "rb", compression="infer") as file:
            value = orjson.loads(file.read().removeprefix(_BYTE_ORDER_MARK))
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON in UTF-8: {error}") from error
    except Exception as error:  # every file system and decompressor raises types of its own
        raise InputError(f"cannot read {path}: {error}") from error
    if isinstance(value, dict):
        value = next((value[key] for key in _LIST_KEYS if isinstance(value.get(key), list)), value)
    if not isinstance(value, list):
        raise InputError(f"{path} holds neither a JSON array nor an object with one under {', '.join(_LIST_KEYS)}")
    for number, row in enumerate(value, start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            reason = f"expected a JSON object, found {type(row).__name__}"
            yield number, BadRow(number, None, reason, _shown(orjson.dumps(row)))


def _shown(line: bytes) -> str:
    return line[:2000].decode("utf-8", "backslashreplace").rstrip("\n")
