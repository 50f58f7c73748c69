"""What rules need of the text of rollouts, as columns of the table: one reading of the records, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from rollmill.corpus.record import Record, decode_record, whole_text, written_text
from rollmill.corpus.table import OPTIONAL_COLUMNS, SCHEMA
from rollmill.jobs.curation.signatures import signatures as signatures_of

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus
    from rollmill.exports.token_counter import TokenCounter
    from rollmill.jobs.curation.contamination import Benchmarks

_BATCH_BYTES = 4 << 20
_KINDS: dict[str, pl.DataType] = {**OPTIONAL_COLUMNS, "tokens": SCHEMA["tokens"]}


def with_text_features(
    corpus: Corpus,
    table: pl.DataFrame,
    alive: pl.Series,
    *,
    signatures: bool = False,
    benchmarks: Benchmarks | None = None,
    counter: TokenCounter | None = None,
) -> pl.DataFrame:
    """The table with the columns asked for: `signature`, `contaminated_by`, `tokens` (by `counter`).

    `alive` is Boolean, one per row of `table`; only these rows' records are read, each once, and all other rows are
    null in the new columns. Signatures are of everything that the model wrote, null where that is nothing;
    contamination is searched in each message of everybody. Rows without messages have no tokens either. At most a few
    megabytes of text are held at a time, or the largest record.
    """
    asked = {"signature": signatures, "contaminated_by": benchmarks is not None, "tokens": counter is not None}
    schema = {name: _KINDS[name] for name, wanted in asked.items() if wanted}
    if not schema:
        return table
    read = table.filter(alive)
    parts = [pl.DataFrame(schema=schema)]
    for records in _batches(corpus.records(read)):
        columns: dict[str, list[Any]] = {}
        if signatures:
            columns["signature"] = [found or None for found in signatures_of([written_text(each) for each in records])]
        if benchmarks is not None:
            columns["contaminated_by"] = list(benchmarks.contaminated([whole_text(each) for each in records]))
        if counter is not None:
            columns["tokens"] = _count(counter, records)
        parts.append(pl.DataFrame(columns, schema=schema))
    made = pl.concat(parts)
    if made.height != read.height:
        raise RuntimeError(f"{made.height} records read for {read.height} rows, a bug in rollmill")
    rest = table.drop(schema, strict=False)
    return rest.join(made.with_columns(read["row"]), on="row", how="left", maintain_order="left").select(
        *table.columns, *(name for name in schema if name not in table.columns)
    )


def _batches(lines: Iterable[bytes]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(decode_record(line))
        size += len(line)
    if batch:
        yield batch


def _count(counter: TokenCounter, records: list[Record]) -> list[int | None]:
    conversations = [record.conversation() for record in records]
    counts = iter(counter.count([[_message(turn) for turn in turns] for turns in conversations if turns]))
    return [next(counts) if turns else None for turns in conversations]


def _message(turn: msgspec.Struct) -> dict[str, Any]:
    """One message, its fields decoded, those that were not recorded left out."""
    fields = {name: getattr(turn, name) for name in turn.__struct_fields__}
    return {
        name: msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
        for name, value in fields.items()
        if not isinstance(value, msgspec.Raw) or bytes(value)
    }
