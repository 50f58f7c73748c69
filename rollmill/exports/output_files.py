"""Output files by their names: JSON or JSON Lines, plain, gzip or zstd; written atomically."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import msgspec

from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write

Layout = Literal[".json", ".jsonl"]

_COMPRESSIONS = (".gz", ".zst")
_LEVEL = 6
_BUFFER = 1 << 20


class OutputName(NamedTuple):
    """The parts of a file's name: its stem, the layout of its rows, and its compression."""

    stem: str
    layout: Layout
    compression: str
    """`.gz`, `.zst`, or empty."""


def parse_output_name(path: Path) -> OutputName:
    """Read `<stem>.json` or `<stem>.jsonl`, also with `.gz` or `.zst`. Raises `InputError` for other names."""
    compression = path.suffix if path.suffix in _COMPRESSIONS else ""
    plain = path.name.removesuffix(compression)
    layouts: tuple[Layout, ...] = (".json", ".jsonl")
    for layout in layouts:
        if plain.endswith(layout) and plain != layout:
            return OutputName(plain.removesuffix(layout), layout, compression)
    raise InputError(
        f"cannot write rows to {path}: give a path that ends in .json or .jsonl, with .gz or .zst or without"
    )


@contextmanager
def open_output(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is written atomically, and compressed as its name says: `.gz` (level 6), `.zst`, or not."""
    with atomic_write(path) as file, ExitStack() as stack:
        if path.suffix == ".gz":
            file = stack.enter_context(_gzip(file))
        elif path.suffix == ".zst":
            file = stack.enter_context(_zstd(file))
        yield file


@contextmanager
def _gzip(file: BinaryIO) -> Iterator[BinaryIO]:
    compressed = gzip.GzipFile("", "wb", _LEVEL, file, mtime=0)  # no name, no time: equal contents make equal files
    with compressed, io.BufferedWriter(compressed, _BUFFER) as buffer:
        yield buffer


@contextmanager
def _zstd(file: BinaryIO) -> Iterator[BinaryIO]:
    import pyarrow as pa

    # The stream closes the file that it writes to, which must stay open for fsync: it gets a handle of its own.
    with (
        open(file.fileno(), "wb", buffering=_BUFFER, closefd=False) as handle,
        pa.CompressedOutputStream(pa.PythonFile(handle, mode="w"), "zstd") as compressed,
    ):
        yield compressed


def write_rows(file: BinaryIO, rows: Iterable[bytes], layout: Layout) -> None:
    """Write JSON objects unchanged, as lines of a JSON Lines file, or between the brackets of an array."""
    if layout == ".jsonl":
        for row in rows:
            file.write(on_one_line(row))
            file.write(b"\n")
        return
    separator = b"\n"
    for row in rows:
        file.write(separator)
        file.write(row)
        separator = b",\n"


def on_one_line(row: bytes) -> bytes:
    """Return the same JSON without line breaks."""
    return msgspec.json.format(row, indent=-1) if b"\n" in row or b"\r" in row else row
