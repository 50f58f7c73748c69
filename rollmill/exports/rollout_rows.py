"""Training rows from rollouts without an export between, for the trainer."""

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

    A row is the same as `export_sft` writes. Failed rollouts, those excluded from training and the rejected side of a
    preference become bad rows. Raises `InputError` as `read_corpus` does.
    """
    bad: list[BadRow] = []

    def add_bad_row(source: Source, row: BadRow) -> None:
        bad.append(row)

    corpus = read_corpus([path], add_bad_row, hashed=False)
    yield from ((row.number, row) for row in bad)
    yield from _rows(corpus)


def _rows(corpus: Corpus) -> Iterator[tuple[int, Row | BadRow]]:
    for facts, line in rollouts(corpus, corpus.table, _COLUMNS):
        number: int = facts["number"]
        try:
            row = _row(facts, decode_record(line))
        except UNREADABLE:
            row = "unreadable_content"
        yield number, BadRow(number, row, row.replace("_", " "), "") if isinstance(row, str) else row


def _row(facts: Facts, record: Record) -> Row | str:
    """Return a rollout's training row, or the reason that there is none."""
    if facts["error_type"] is not None:
        return "failed"
    if facts["marked"]:
        return "marked_not_for_training"
    if is_rejected(record):
        return REJECTED_SIDE
    conversation = clean_conversation(record.conversation())
    if isinstance(conversation, str):
        return conversation
    context: dict[str, Any] = {
        name: msgspec.json.decode(value) for name in CONTEXT if len(value := record.request_field(name))
    }
    metadata = row_metadata(facts, record, None, no_end=len(conversation.turns[-1].stop_text) > 0)
    messages = msgspec.json.decode(msgspec.json.encode(conversation.turns))
    return {"messages": messages, **context, "metadata": metadata}
