"""Columns computed from the texts of rollouts, which some rules need: records are read once, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import polars as pl

from rollmill.corpus.record import UNREADABLE_ERRORS, Record, decode_record
from rollmill.corpus.record_text import full_text, written_text
from rollmill.corpus.table import OPTIONAL_COLUMNS, SCHEMA
from rollmill.exports.origins import read_request_context
from rollmill.exports.token_counter import ContextualChat
from rollmill.jobs.curation.signatures import signatures as signatures_of

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus
    from rollmill.exports.token_counter import TokenCounter
    from rollmill.jobs.curation.contamination import Benchmarks

_BATCH_BYTES = 4 << 20
"""Size of a batch of records, which bounds the memory; a larger record is a batch of its own."""
_T = TypeVar("_T")
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
    """Return the table with the requested columns: `signature`, `contaminated_by`, `tokens`.

    Contamination is searched for in the messages of all roles. Rows without messages have no tokens. At most a few
    megabytes of text are in memory at a time, or the largest record.

    Args:
        corpus: the rollouts that were read.
        table: rows of its table.
        alive: Boolean, one per row; only the records of these rows are read, other rows are null in the new columns.
        signatures: whether to compute signatures of everything that the model wrote, null where that is nothing.
        benchmarks: items to search for.
        counter: counts tokens.
    """
    requested = {"signature": signatures, "contaminated_by": benchmarks is not None, "tokens": counter is not None}
    schema = {name: _KINDS[name] for name, is_requested in requested.items() if is_requested}
    if not schema:
        return table
    read = table.filter(alive)
    parts = [pl.DataFrame(schema=schema)]
    for records in _batches(corpus.records(read)):
        columns: dict[str, list[Any]] = {}
        if signatures:
            columns["signature"] = [
                signature or None
                for signature in signatures_of([_readable(written_text, each, "") for each in records])
            ]
        if benchmarks is not None:
            columns["contaminated_by"] = list(
                benchmarks.contaminated([_readable(full_text, each, "") for each in records])
            )
        if counter is not None:
            columns["tokens"] = _count(counter, records)
        parts.append(pl.DataFrame(columns, schema=schema))
    features = pl.concat(parts)
    if features.height != read.height:
        raise RuntimeError(f"{features.height} records read for {read.height} rows, a bug in rollmill")
    rest = table.drop(schema, strict=False)
    return rest.join(features.with_columns(read["row"]), on="row", how="left", maintain_order="left").select(
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


def _readable(convert: Callable[[Record], _T], record: Record, nothing: _T) -> _T:
    """Return `convert(record)`, or `nothing` where contents cannot be read: the export reports such records."""
    try:
        return convert(record)
    except UNREADABLE_ERRORS:
        return nothing


def _count(counter: TokenCounter, records: list[Record]) -> list[int | None]:
    unreadable: list[dict[str, Any]] = []
    chats = [_readable(_chat, record, unreadable) for record in records]
    counts = iter(counter.count([chat for chat in chats if chat]))
    return [next(counts) if chat else None for chat in chats]


def _chat(record: Record) -> list[dict[str, Any]]:
    """Return a record's messages, decoded, with the other arguments of their chat template."""
    context = {name: msgspec.json.decode(value) for name, value in read_request_context(record).items()}
    turns = map(_message, record.conversation() or [])
    return ContextualChat(turns, context, reasoning_dropped=record.drops_reasoning())


def _message(turn: msgspec.Struct) -> dict[str, Any]:
    """Return one message with its recorded fields, decoded."""
    fields = {name: getattr(turn, name) for name in turn.__struct_fields__}
    return {
        name: msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
        for name, value in fields.items()
        if not isinstance(value, msgspec.Raw) or bytes(value)
    }
