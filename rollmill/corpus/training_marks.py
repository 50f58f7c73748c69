"""What producers say of turns and rows in decoded values: not to be trained on, cut off.

The rule is the one of records as they stand in files (`message_forms`, `record`): rows are the same to curation and to
training.
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
"""Keys of a message by which producers say that it is not to be learnt."""
_MESSAGE_MARKS_AND_FACTS = MESSAGE_MARKS | {"metadata"}
_ROW_MARKS = frozenset(MARKS)
_ROW_ENDS = frozenset({*FINISH_FIELDS, "status"})


def is_untrained_message(message: Mapping[str, Any]) -> bool:
    """Return whether a message is marked as not to be learnt, under any name that producers have for it."""
    if _MESSAGE_MARKS_AND_FACTS.isdisjoint(message):
        return False
    turn = _message(message, _MESSAGE_MARKS_AND_FACTS)
    return is_marked(turn) or metadata_has_mark(parse_raw_text(turn.metadata))


def is_cut_off_message(message: Mapping[str, Any]) -> bool:
    """Return whether a message itself says that it was cut off at a limit on tokens."""
    return not BOOKKEEPING.isdisjoint(message) and is_cut_off_turn(_message(message, BOOKKEEPING))


def is_untrained_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row as a whole, or its metadata, is marked as not to be trained on."""
    return _row(row, _ROW_MARKS).is_marked()


def is_cut_off_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row, or its metadata, says that its last turn was cut off at a limit on tokens."""
    return _row(row, _ROW_ENDS).is_cut_off()


def _message(message: Mapping[str, Any], names: Collection[str]) -> RecordedMessage:
    return _messages.decode(msgspec.json.encode(_raw(message, names)))


def _row(row: Mapping[str, Any], names: Collection[str]) -> Record:
    found = row.get("metadata")
    metadata = _raw(found, names) if isinstance(found, dict) else _dumped(found)
    return decode_record(msgspec.json.encode(_raw(row, names) | {"metadata": metadata}))


_messages = msgspec.json.Decoder(RecordedMessage)


def _raw(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: _dumped(values[name]) for name in names if name in values}


def _dumped(value: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(orjson.dumps(value))
    except TypeError:  # nested deeper than any mark is
        return msgspec.Raw(b"null")
