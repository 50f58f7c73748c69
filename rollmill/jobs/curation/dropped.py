"""What is left out: whole records with their reasons, or only where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.corpus.table import SCHEMA
from rollmill.exports.packing import output_kind
from rollmill.exports.seed_format import generated_metadata, summary, write_seed_format
from rollmill.files.atomic import atomic_write

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_END = 200
_OF_THIS_READING = {"row", "source", "number", "completion_hash"}


def dropped_line(count: int, reasons: dict[str, int], path: Path) -> str:
    """Return what a user should read of what was left out."""
    listed = ", ".join(f"{reason} {number:,}" for reason, number in reasons.items()) or "none"
    return f"dropped {count:,} ({listed}): {path}"


def dropped_path(path: Path) -> Path:
    """Return where the dropped records of an output go: `rows.json.gz` -> `rows.dropped.json.gz`."""
    stem = output_kind(path).stem
    return path.with_name(f"{stem}.dropped{path.name.removeprefix(stem)}")


def places_path(path: Path) -> Path:
    """Return where the places of what an output lacks go: `rows.json` -> `rows.dropped.jsonl`."""
    return path.with_name(f"{output_kind(path).stem}.dropped.jsonl")


def write_dropped_records(path: Path, corpus: Corpus, dropped: pl.DataFrame) -> None:
    """Write whole records with their `drop_reason`, in the format that the path's name says."""
    write_seed_format(path, generated_metadata(corpus, dropped), _with_reasons(corpus, dropped), summary(dropped))


def write_places(path: Path, corpus: Corpus, dropped: pl.DataFrame) -> None:
    """Write a line for each dropped rollout: `drop_reason`, `source`, `row` in it, and what the table says of it."""
    sources = pl.Series("path", corpus.sources, dtype=pl.String)
    facts = [name for name in SCHEMA if name not in _OF_THIS_READING]
    source = sources.gather(dropped["source"]).alias("source")
    with atomic_write(path) as file:
        dropped.select("drop_reason", source, pl.col("number").alias("row"), *facts).write_ndjson(file)


def _with_reasons(corpus: Corpus, dropped: pl.DataFrame) -> Iterator[bytes]:
    reasons = {
        reason: b',"drop_reason":%s}' % msgspec.json.encode(reason) for reason in dropped["drop_reason"].unique()
    }
    for reason, record in zip(dropped["drop_reason"], corpus.records(dropped), strict=True):
        if b'"drop_reason"' in record[-_END:]:  # where an earlier filter has put it
            yield msgspec.json.encode({**_fields.decode(record), "drop_reason": reason})
        else:
            yield record[:-1] + reasons[reason]
