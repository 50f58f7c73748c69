"""Make training rows from rollouts directly, without an exported file in between, for the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from rollmill.corpus.corpus import Corpus, read_corpus
from rollmill.corpus.inputs import Source
from rollmill.corpus.record import UNREADABLE_ERRORS, Record, decode_record
from rollmill.exports.conversation import clean_conversation
from rollmill.exports.origins import (
    FACT_COLUMNS,
    REJECTED_SIDE_REASON,
    Facts,
    is_rejected_side,
    make_row_metadata,
    read_request_context,
    read_rollouts,
)
from rollmill.files.rows import BadRow, Row

_COLUMNS = [*FACT_COLUMNS, "number", "error_type"]


def training_rows_of_rollouts(path: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (number, training row) for each rollout of a file or a run.

    A row is the same as `export_sft` writes. Rows of the file that cannot be read come first, as bad rows; all others,
    usable or not, follow in the order of the file. Failed rollouts, those excluded from training and the rejected side
    of a preference become bad rows, whose `field` is the code of the reason. Raises `InputError` as `read_corpus` does.
    """
    bad: list[BadRow] = []

    def add_bad_row(source: Source, row: BadRow) -> None:
        bad.append(row)

    corpus = read_corpus([path], add_bad_row, hashed=False)  # no hashes of completions: no duplicates are dropped
    yield from ((row.number, row) for row in bad)
    yield from _rows(corpus)


def _rows(corpus: Corpus) -> Iterator[tuple[int, Row | BadRow]]:
    for facts, line in read_rollouts(corpus, corpus.table, _COLUMNS):
        number: int = facts["number"]
        try:
            row_or_reason = _row(facts, decode_record(line))
        except UNREADABLE_ERRORS:
            row_or_reason = "unreadable_content"
        if isinstance(row_or_reason, str):
            yield number, BadRow(number, row_or_reason, row_or_reason.replace("_", " "), "")
        else:
            yield number, row_or_reason


def _row(facts: Facts, record: Record) -> Row | str:
    """Return a rollout's training row, or the reason that there is none."""
    if facts["error_type"] is not None:
        return "failed"
    if facts["marked"]:
        return "marked_not_for_training"
    if is_rejected_side(record):
        return REJECTED_SIDE_REASON
    conversation = clean_conversation(record.conversation())
    if isinstance(conversation, str):
        return conversation
    context: dict[str, Any] = {name: msgspec.json.decode(value) for name, value in read_request_context(record).items()}
    # A stop string ended the last turn: the model wrote no end-of-turn token to train on.
    no_end = len(conversation.turns[-1].stop_text) > 0
    metadata = make_row_metadata(facts, record, origin=None, no_end=no_end)
    # `msgspec.to_builtins` would refuse the `Raw` fields of messages.
    messages = msgspec.json.decode(msgspec.json.encode(conversation.turns))
    return {"messages": messages, **context, "metadata": metadata}
