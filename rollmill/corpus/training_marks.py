"""Test whether decoded messages and rows are excluded from training, or were cut off at a limit on tokens.

Values are encoded as JSON again, and decoded as the types that records in files have: so the rules are the same
(`loss_marks`, `truncation`), and curation and training treat rows in the same way.
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

_recorded_message_decoder = msgspec.json.Decoder(RecordedMessage)
# `RecordedMessage` adds to `ScannedMessage` the fields of marks (`train`, `loss_mask`, `ignore`, ...), and must add no
# others: a test checks each. `weight` is a mark, too, that every message type has.
_ADDED_FIELDS = frozenset(RecordedMessage.__struct_fields__) - frozenset(ScannedMessage.__struct_fields__)
MESSAGE_MARKS = _ADDED_FIELDS | {"weight"}
"""Keys of a message by which producers exclude it from training."""
_MESSAGE_MARKS_AND_METADATA = MESSAGE_MARKS | {"metadata"}
_ROW_MARKS = frozenset(MARKS)
# A row's `status` may be that of a response ("incomplete"). `FINISH_FIELDS` are also read in `metadata`, whose `status`
# has other meanings.
_ROW_FINISH_FIELDS = frozenset({*FINISH_FIELDS, "status"})


def is_untrained_message(message: Mapping[str, Any]) -> bool:
    """Return whether a message is excluded from training, under any name that producers have for it."""
    if _MESSAGE_MARKS_AND_METADATA.isdisjoint(message):
        return False
    turn = _recorded_message(message, _MESSAGE_MARKS_AND_METADATA)
    # `is_marked` of a message covers its own fields only; that of a record, below, its metadata as well.
    return is_marked(turn) or metadata_has_mark(parse_raw_text(turn.metadata))


def is_cut_off_message(message: Mapping[str, Any]) -> bool:
    """Return whether a message itself records that it was cut off at a limit on tokens."""
    return not BOOKKEEPING.isdisjoint(message) and is_cut_off_turn(_recorded_message(message, BOOKKEEPING))


def is_untrained_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row as a whole, or its metadata, is excluded from training."""
    return _record(row, _ROW_MARKS).is_marked()


def is_cut_off_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row, or its metadata, records that its last turn was cut off at a limit on tokens."""
    return _record(row, _ROW_FINISH_FIELDS).is_cut_off()


def _recorded_message(message: Mapping[str, Any], names: Collection[str]) -> RecordedMessage:
    return _recorded_message_decoder.decode(msgspec.json.encode(_raw_values(message, names)))


def _record(row: Mapping[str, Any], names: Collection[str]) -> Record:
    """Encode only the named fields of a row and of its metadata, and decode them as a `Record`.

    The messages, which are not needed, would take most of the time.
    """
    value = row.get("metadata")
    # Metadata that is no object may be JSON text of one, as in columns of tables: `Record` parses it.
    metadata = _raw_values(value, names) if isinstance(value, dict) else _encode(value)
    return decode_record(msgspec.json.encode(_raw_values(row, names) | {"metadata": metadata}))


def _raw_values(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: _encode(values[name]) for name in names if name in values}


def _encode(value: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(orjson.dumps(value))
    except TypeError:  # nested too deep, an integer beyond 64 bits, a key that is no string: no mark has such a value
        return msgspec.Raw(b"null")
