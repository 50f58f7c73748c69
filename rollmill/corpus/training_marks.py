"""Decoded messages and rows that are excluded from training, or were cut off.

The rules are those for records in files (`loss_marks`, `truncation`): curation and training treat rows in the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import orjson

from rollmill.corpus.loss_marks import MARKS, is_marked, metadata_has_mark
from rollmill.corpus.message import BOOKKEEPING, RecordedMessage, ScannedMessage
from rollmill.corpus.raw_json import parse_raw_text
from rollmill.corpus.record import Record, decode_record
from rollmill.corpus.truncation import FINISH_FIELDS, is_cut_off_turn

MESSAGE_MARKS = frozenset({*RecordedMessage.__struct_fields__} - {*ScannedMessage.__struct_fields__} | {"weight"})
"""Keys of a message by which producers exclude it from training."""
_MESSAGE_MARKS_AND_METADATA = MESSAGE_MARKS | {"metadata"}
_ROW_MARKS = frozenset(MARKS)
_ROW_FINISH_FIELDS = frozenset({*FINISH_FIELDS, "status"})


def is_untrained_message(message: Mapping[str, Any]) -> bool:
    """Return whether a message is excluded from training, under any name that producers have for it."""
    if _MESSAGE_MARKS_AND_METADATA.isdisjoint(message):
        return False
    turn = _message(message, _MESSAGE_MARKS_AND_METADATA)
    return is_marked(turn) or metadata_has_mark(parse_raw_text(turn.metadata))


def is_cut_off_message(message: Mapping[str, Any]) -> bool:
    """Return whether a message itself records that it was cut off at a limit on tokens."""
    return not BOOKKEEPING.isdisjoint(message) and is_cut_off_turn(_message(message, BOOKKEEPING))


def is_untrained_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row as a whole, or its metadata, is excluded from training."""
    return _row(row, _ROW_MARKS).is_marked()


def is_cut_off_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row, or its metadata, records that its last turn was cut off at a limit on tokens."""
    return _row(row, _ROW_FINISH_FIELDS).is_cut_off()


def _message(message: Mapping[str, Any], names: Collection[str]) -> RecordedMessage:
    return _messages.decode(msgspec.json.encode(_raw_values(message, names)))


def _row(row: Mapping[str, Any], names: Collection[str]) -> Record:
    """Return the record of the named fields only, of the row and its metadata: encoding all messages would be slow."""
    value = row.get("metadata")
    metadata = _raw_values(value, names) if isinstance(value, dict) else _encode(value)
    return decode_record(msgspec.json.encode(_raw_values(row, names) | {"metadata": metadata}))


_messages = msgspec.json.Decoder(RecordedMessage)


def _raw_values(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: _encode(values[name]) for name in names if name in values}


def _encode(value: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(orjson.dumps(value))
    except TypeError:  # nested deeper than any of these fields is
        return msgspec.Raw(b"null")
