"""Output files by their names: plain, gzip or zstd, JSON or JSON Lines; whole or not at all."""

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

_PACKED = (".gz", ".zst")
_LEVEL = 6
_BUFFER = 1 << 20


class OutputKind(NamedTuple):
    """What a file's name says: its stem, how rows stand in it, and how it is compressed."""

    stem: str
    layout: Layout
    packed: str


def output_kind(path: Path) -> OutputKind:
    """Read `<stem>.json` or `.jsonl`, with `.gz` or `.zst` behind it or not. Raises `InputError` for other names."""
    packed = path.suffix if path.suffix in _PACKED else ""
    plain = path.name.removesuffix(packed)
    layouts: tuple[Layout, ...] = (".json", ".jsonl")
    for layout in layouts:
        if plain.endswith(layout) and plain != layout:
            return OutputKind(plain.removesuffix(layout), layout, packed)
    raise InputError(
        f"cannot write rows to {path}: give a path that ends in .json or .jsonl, with .gz or .zst or without"
    )


@contextmanager
def write_packed(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears whole, compressed as its name says: `.gz` (level 6), `.zst`, or not."""
    with atomic_write(path) as file, ExitStack() as stack:
        if path.suffix == ".gz":
            file = stack.enter_context(_gzip(file))
        elif path.suffix == ".zst":
            file = stack.enter_context(_zstd(file))
        yield file


@contextmanager
def _gzip(file: BinaryIO) -> Iterator[BinaryIO]:
    packed = gzip.GzipFile("", "wb", _LEVEL, file, mtime=0)  # no name, no time: equal contents make equal files
    with packed, io.BufferedWriter(packed, _BUFFER) as buffer:
        yield buffer


@contextmanager
def _zstd(file: BinaryIO) -> Iterator[BinaryIO]:
    import pyarrow as pa

    # The stream closes what it writes to, and the file must stay open to reach the disk: so it gets another handle.
    with (
        open(file.fileno(), "wb", buffering=_BUFFER, closefd=False) as handle,
        pa.CompressedOutputStream(pa.PythonFile(handle, mode="w"), "zstd") as packed,
    ):
        yield packed


def write_rows(file: BinaryIO, rows: Iterable[bytes], layout: Layout) -> None:
    """Write JSON objects, copied: as the lines of a JSON Lines file, or between the brackets of an array."""
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
    """Return the same JSON without a line break."""
    return msgspec.json.format(row, indent=-1) if b"\n" in row or b"\r" in row else row
