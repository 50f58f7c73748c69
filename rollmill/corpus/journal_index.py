"""A run's own compact form: the scalars of its journal as Parquet, with every record's place in it.

A journal only grows. So the index says how many of its bytes it covers, and what was appended since is scanned; the
messages are read from the journal, by place, when somebody wants them.

Somebody may have edited rows all the same. So the index has a hash of the bytes that it covers. They are hashed again
(gigabytes in a second) unless the file is the same and nobody has changed it since: no program can set a file's ctime
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
_PIECE = 1 << 20
_CLOCK_STEP_NS = 20_000_000
"""Two changes that are closer than this may have the same ctime; steps of Linux's clock for files are up to 10 ms."""


class Indexed(NamedTuple):
    """What an index holds: rows of the table, and the bytes and lines of the journal that they are of."""

    table: pl.DataFrame
    covered: int
    lines: int


def index_path(journal: Path) -> Path:
    """Return where a journal's index stands."""
    return journal.with_suffix(".index.parquet")


class JournalState(NamedTuple):
    """Which file a journal is, and when somebody last changed it."""

    file: list[int]
    settled: bool
    """Whether the next change will have another ctime."""

    @classmethod
    def of(cls, journal: Path) -> Self:
        """Return the state as it is now. Raises `OSError`."""
        now = time.time_ns()
        status = journal.stat()
        numbers = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        return cls(numbers, status.st_ctime_ns < now - _CLOCK_STEP_NS)


def read_index(journal: Path) -> Indexed | None:
    """Return the index of a journal.

    Returns None where there is none that is whole, of this version and of the journal's rows.
    """
    import pyarrow.parquet as pq

    try:
        require_regular(index_path(journal))
        with pq.ParquetFile(index_path(journal), page_checksum_verification=True) as file:
            about = orjson.loads(file.schema_arrow.metadata[_KEY])
            if about["version"] != VERSION or not _matches(journal, about):
                return None
            read = file.read()
        read.validate(full=True)
        table = pl.DataFrame([pl.Series(name, read[name]) for name in COLUMNS])
    except (InputError, OSError, ValueError, KeyError, TypeError, NotImplementedError, pl.exceptions.PolarsError):
        return None  # ValueError, NotImplementedError: also what Arrow and orjson raise for a damaged file
    return Indexed(table, about["covered"], about["lines"]) if table.schema == COLUMNS else None


def write_index(journal: Path, indexed: Indexed, before: JournalState) -> None:
    """Write whole the index of a journal's rows, unless the journal is being changed. Raises `OSError`.

    Args:
        journal: the file.
        indexed: what was found in it.
        before: its state before it was read.
    """
    import pyarrow.parquet as pq

    about = {
        "version": VERSION,
        "covered": indexed.covered,
        "lines": indexed.lines,
        "content": _content_hash(journal, indexed.covered),
        "file": before.file if before.settled else None,
    }
    if JournalState.of(journal).file != before.file:
        return  # somebody writes to it: the index would be out of date at once
    table = indexed.table.to_arrow().replace_schema_metadata({_KEY: orjson.dumps(about)})
    with atomic_write(index_path(journal)) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def _matches(journal: Path, about: dict[str, Any]) -> bool:
    """Return whether the journal begins with the bytes that an index is of."""
    if JournalState.of(journal).file == about["file"]:
        return True  # nobody has touched it since: gigabytes need not be hashed
    return _content_hash(journal, about["covered"]) == str(about["content"])


def _content_hash(journal: Path, size: int) -> str | None:
    """Return a hash of the first `size` bytes; None where there are fewer."""
    digest = xxhash.xxh3_128()
    with journal.open("rb", buffering=0) as file:
        while size > 0 and (piece := file.read(min(size, _PIECE))):
            digest.update(piece)
            size -= len(piece)
    return None if size else digest.hexdigest()
