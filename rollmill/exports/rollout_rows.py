"""Rollouts as training rows without a file between: what curation reads, a trainer reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from rollmill.corpus.corpus import Corpus, read_corpus
from rollmill.corpus.inputs import Source
from rollmill.corpus.record import UNREADABLE, Record, decode_record
from rollmill.exports.conversation import clean_conversation
from rollmill.exports.origins import CONTEXT, FACT_COLUMNS, REJECTED_SIDE, Facts, is_rejected, rollouts, row_metadata
from rollmill.files.rows import BadRow, Row

_COLUMNS = [*FACT_COLUMNS, "number", "error_type"]


def rollout_rows(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (number, training row) for each rollout of a file or a run, those that cannot be used first.

    A row is what `export_sft` writes of the rollout. What failed on the way, what is marked against training and the
    rejected side of a preference are bad rows. Raises `InputError` as `read_corpus` does.
    """
    bad: list[BadRow] = []

    def put_aside(source: Source, row: BadRow) -> None:
        bad.append(row)

    corpus = read_corpus([path], put_aside, hashed=False)
    yield from ((row.number, row) for row in bad)
    yield from _rows(corpus)


def _rows(corpus: Corpus) -> Iterator[tuple[int, Row | BadRow]]:
    for facts, line in rollouts(corpus, corpus.table, _COLUMNS):
        number: int = facts["number"]
        try:
            found = _row(facts, decode_record(line))
        except UNREADABLE:
            found = "unreadable_content"
        yield number, BadRow(number, found, found.replace("_", " "), "") if isinstance(found, str) else found


def _row(facts: Facts, record: Record) -> Row | str:
    """Return a rollout's row, or the reason for which there is none."""
    if facts["error_type"] is not None:
        return "failed"
    if facts["marked"]:
        return "marked_not_for_training"
    if is_rejected(record):
        return REJECTED_SIDE
    found = clean_conversation(record.conversation())
    if isinstance(found, str):
        return found
    context: dict[str, Any] = {
        name: msgspec.json.decode(value) for name in CONTEXT if len(value := record.request_field(name))
    }
    metadata = row_metadata(facts, record, None, no_end=len(found.turns[-1].stop_text) > 0)
    messages = msgspec.json.decode(msgspec.json.encode(found.turns))
    return {"messages": messages, **context, "metadata": metadata}
