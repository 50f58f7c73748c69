"""A run's own compact form: the scalars of its journal as Parquet, with every record's place in it.

A journal only grows. So the index says how many of its bytes it covers, and what was appended since is scanned; the
messages are read from the journal, by place, when somebody wants them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import orjson
import polars as pl
import xxhash

from rollmill.files.whole import write_whole

VERSION = "1"
"""Raised whenever the columns or their meaning change."""

_KEY = "rollmill.journal_index"
_SEEN = 4096


class Indexed(NamedTuple):
    """What an index holds: rows of the table, and the bytes and lines of the journal that they are of."""

    table: pl.DataFrame
    covered: int
    lines: int


def index_path(journal: Path) -> Path:
    """Where a journal's index stands."""
    return journal.with_suffix(".index.parquet")


def read_index(journal: Path) -> Indexed | None:
    """The index of a journal; None where there is none that is of this version and of this journal."""
    path = index_path(journal)
    try:
        about = orjson.loads(pl.read_parquet_metadata(path)[_KEY])
        if about["version"] != VERSION or about["seen"] != _fingerprint(journal, about["covered"]):
            return None
        return Indexed(pl.read_parquet(path), about["covered"], about["lines"])
    except (OSError, KeyError, pl.exceptions.PolarsError, orjson.JSONDecodeError):
        return None


def write_index(journal: Path, table: pl.DataFrame, covered: int, lines: int) -> None:
    """Writes whole the index of a journal's first `covered` bytes, which are so many lines. Raises `OSError`."""
    about = {"version": VERSION, "covered": covered, "lines": lines, "seen": _fingerprint(journal, covered)}
    with write_whole(index_path(journal)) as file:
        table.write_parquet(file, metadata={_KEY: orjson.dumps(about).decode()})


def _fingerprint(journal: Path, covered: int) -> str:
    """Of the last bytes that are covered: another journal, or one cut back and grown again, has others."""
    with journal.open("rb") as file:
        file.seek(max(0, covered - _SEEN))
        return f"{covered}:{xxhash.xxh3_64_hexdigest(file.read(min(_SEEN, covered)))}"
