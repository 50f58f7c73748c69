"""Dropped rollouts: whole records with their reasons, or only their positions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.corpus.table import SCHEMA
from rollmill.exports.output_files import parse_output_name
from rollmill.exports.seed_format import make_metadata, make_summary, write_seed_format
from rollmill.files.atomic import atomic_write

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_END = 200
"""Bytes at the end of a record in which an earlier filter has put the reason."""
_READING_COLUMNS = {"row", "source", "number", "completion_hash"}
"""Columns that have no meaning outside of this reading of the inputs."""


def dropped_line(count: int, reasons: dict[str, int], path: Path) -> str:
    """Return a line about the dropped rollouts for the user."""
    listed = ", ".join(f"{reason} {number:,}" for reason, number in reasons.items()) or "none"
    return f"dropped {count:,} ({listed}): {path}"


def dropped_path(path: Path) -> Path:
    """Return the path of an output's dropped records: `rows.json.gz` -> `rows.dropped.json.gz`."""
    stem = parse_output_name(path).stem
    return path.with_name(f"{stem}.dropped{path.name.removeprefix(stem)}")


def positions_path(path: Path) -> Path:
    """Return the path of the positions of an output's dropped rollouts: `rows.json` -> `rows.dropped.jsonl`."""
    return path.with_name(f"{parse_output_name(path).stem}.dropped.jsonl")


def write_dropped_records(path: Path, corpus: Corpus, dropped: pl.DataFrame) -> None:
    """Write whole records with their `drop_reason`, in the format of the path's name."""
    write_seed_format(path, make_metadata(corpus, dropped), _with_reasons(corpus, dropped), make_summary(dropped))


def write_positions(path: Path, corpus: Corpus, dropped: pl.DataFrame) -> None:
    """Write a line for each dropped rollout: `drop_reason`, `source`, `row` in that file, and the table's columns."""
    sources = pl.Series("path", corpus.sources, dtype=pl.String)
    facts = [name for name in SCHEMA if name not in _READING_COLUMNS]
    source = sources.gather(dropped["source"]).alias("source")
    with atomic_write(path) as file:
        dropped.select("drop_reason", source, pl.col("number").alias("row"), *facts).write_ndjson(file)


def _with_reasons(corpus: Corpus, dropped: pl.DataFrame) -> Iterator[bytes]:
    reasons = {
        reason: b',"drop_reason":%s}' % msgspec.json.encode(reason) for reason in dropped["drop_reason"].unique()
    }
    for reason, record in zip(dropped["drop_reason"], corpus.records(dropped), strict=True):
        if b'"drop_reason"' in record[-_END:]:  # of an earlier filter
            yield msgspec.json.encode({**_fields.decode(record), "drop_reason": reason})
        else:
            yield record[:-1] + reasons[reason]
