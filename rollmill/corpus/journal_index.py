"""The index of a run's journal: the scalars of its records as Parquet, with the offset of every record.

A journal only grows. So the index stores how many of its bytes it covers, and only what was appended since is scanned;
messages are read from the journal, by offset, when they are needed.

A user may have edited rows all the same. So the index has a hash of the bytes that it covers. They are hashed again
(gigabytes in a second) unless the file is the same and has not been changed since: no program can set a file's ctime
back.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
import polars as pl
import xxhash

from rollmill.corpus.scan import COLUMNS
from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write
from rollmill.files.regular import require_regular

VERSION = "5"
"""Raised whenever the columns or their meaning change."""

_KEY = b"rollmill.journal_index"
_CHUNK_BYTES = 1 << 20
_CLOCK_STEP_NS = 20_000_000
"""Two changes that are closer than this may have the same ctime; steps of Linux's clock for files are up to 10 ms."""


class Indexed(NamedTuple):
    """The content of an index: rows of the table, and the number of bytes and lines of the journal that they cover."""

    table: pl.DataFrame
    covered: int
    lines: int


def index_path(journal: Path) -> Path:
    """Return the path of a journal's index."""
    return journal.with_suffix(".index.parquet")


class JournalState(NamedTuple):
    """The identity of a journal's file, and whether its last change is old enough to detect the next one."""

    file: list[int]
    settled: bool
    """True if the next change will get another ctime, so that comparing `file` detects it."""

    @classmethod
    def of(cls, journal: Path) -> Self:
        """Return the state of a journal. Raises `OSError`."""
        now = time.time_ns()
        status = journal.stat()
        numbers = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        return cls(numbers, status.st_ctime_ns < now - _CLOCK_STEP_NS)


def read_index(journal: Path) -> Indexed | None:
    """Return the index of a journal.

    Returns None where there is none, or it is damaged, of another version, or of other rows than the journal's.
    """
    import pyarrow.parquet as pq

    try:
        require_regular(index_path(journal))
        with pq.ParquetFile(index_path(journal), page_checksum_verification=True) as file:
            header = orjson.loads(file.schema_arrow.metadata[_KEY])
            if header["version"] != VERSION or not _matches(journal, header):
                return None
            arrow_table = file.read()
        arrow_table.validate(full=True)  # checksums cover pages, not the offsets between them
        table = pl.DataFrame([pl.Series(name, arrow_table[name]) for name in COLUMNS])
    except (InputError, OSError, ValueError, KeyError, TypeError, NotImplementedError, pl.exceptions.PolarsError):
        return None  # ValueError, NotImplementedError: also what Arrow and orjson raise for a damaged file
    return Indexed(table, header["covered"], header["lines"]) if table.schema == COLUMNS else None


def write_index(journal: Path, indexed: Indexed, before: JournalState) -> None:
    """Write the index of a journal's rows atomically, unless the journal is being changed. Raises `OSError`.

    Args:
        journal: the file.
        indexed: its rows.
        before: its state before it was read.
    """
    import pyarrow.parquet as pq

    header = {
        "version": VERSION,
        "covered": indexed.covered,
        "lines": indexed.lines,
        "content": _content_hash(journal, indexed.covered),
        "file": before.file if before.settled else None,
    }
    if JournalState.of(journal).file != before.file:
        return  # another process writes to it: the index would be out of date at once
    table = indexed.table.to_arrow().replace_schema_metadata({_KEY: orjson.dumps(header)})
    with atomic_write(index_path(journal)) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def _matches(journal: Path, header: dict[str, Any]) -> bool:
    """Return whether the journal begins with the bytes that an index covers."""
    if JournalState.of(journal).file == header["file"]:
        return True  # unchanged since: gigabytes need not be hashed
    return _content_hash(journal, header["covered"]) == str(header["content"])


def _content_hash(journal: Path, size: int) -> str | None:
    """Return a hash of the first `size` bytes; None where the file is shorter."""
    digest = xxhash.xxh3_128()
    with journal.open("rb", buffering=0) as file:
        while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
            digest.update(chunk)
            size -= len(chunk)
    return None if size else digest.hexdigest()
