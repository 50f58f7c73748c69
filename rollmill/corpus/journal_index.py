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

from rollmill.corpus.scan import COLUMNS
from rollmill.files.whole import write_whole

VERSION = "2"
"""Raised whenever the columns or their meaning change."""

_KEY = b"rollmill.journal_index"
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
    """The index of a journal; None where there is none that is whole, of this version and of this journal."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(index_path(journal), page_checksum_verification=True) as file:
            about = orjson.loads(file.schema_arrow.metadata[_KEY])
            if about != _about(journal, about["covered"], about["lines"]):
                return None
            read = file.read()
        read.validate(full=True)
        table = pl.DataFrame([pl.Series(name, read[name]) for name in COLUMNS])
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError):
        return None  # ValueError: also what Arrow and orjson raise for a damaged file
    return Indexed(table, about["covered"], about["lines"]) if table.schema == COLUMNS else None


def write_index(journal: Path, table: pl.DataFrame, covered: int, lines: int) -> None:
    """Writes whole the index of a journal's first `covered` bytes, which are so many lines. Raises `OSError`."""
    import pyarrow.parquet as pq

    about = {_KEY: orjson.dumps(_about(journal, covered, lines))}
    with write_whole(index_path(journal)) as file:
        pq.write_table(
            table.to_arrow().replace_schema_metadata(about), file, compression="zstd", write_page_checksum=True
        )


def _about(journal: Path, covered: int, lines: int) -> dict[str, object]:
    return {"version": VERSION, "covered": covered, "lines": lines, "seen": _fingerprint(journal, covered)}


def _fingerprint(journal: Path, covered: int) -> str:
    """Of the last bytes that are covered: another journal, or one cut back and grown again, has others."""
    with journal.open("rb") as file:
        file.seek(max(0, covered - _SEEN))
        return f"{covered}:{xxhash.xxh3_64_hexdigest(file.read(min(_SEEN, covered)))}"
