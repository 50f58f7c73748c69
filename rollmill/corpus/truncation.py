"""Finish reasons: find answers that were cut off at a limit on tokens, under the names of all servers and producers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from rollmill.corpus.message import PlainMessage, ScannedMessage, get_bookkeeping, has_bookkeeping
from rollmill.corpus.raw_json import NOTHING, decode_first_object, is_true, parse_object_text, raw_fields_decoder
from rollmill.records import is_cut_off

_REASONS = (
    "finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason", "incomplete_details",
    "finish_details", "stop_type",
)  # fmt: skip
_RESPONSES = (
    "choices", "candidates", "response", "response_metadata", "generation_info", "meta_info", "details",
)  # fmt: skip
"""Objects, or lists of objects, in which servers and their clients put these reasons."""
FINISH_FIELDS = (*_REASONS, "truncated", "is_truncated", *_RESPONSES)
"""Fields of an object such as `metadata` that tell how an answer ended."""
_LONGEST_REASON = 500
"""Bytes; a longer value is no finish reason."""
_FINISH_FIELD_PARTS = (b"eason", b"truncated", b"_details", b"stop_type")
"""Parts of the names in `_REASONS`: objects without any of them are not decoded."""


def is_cut_off_turn(turn: PlainMessage) -> bool:
    """Return whether a message itself records that it was cut off at a limit on tokens."""
    if not isinstance(turn, ScannedMessage):
        reason = turn.finish_reason
        return (reason is not NOTHING and _is_cut_off(bytes(reason))) or (
            turn.extra is not NOTHING and is_cut_off_metadata(turn.extra)
        )
    if not has_bookkeeping(turn):
        return False
    return has_cut_off_fields(get_bookkeeping(turn)) or any(
        is_cut_off_metadata(parse_object_text(value)) for value in (turn.metadata, turn.response_metadata, turn.extra)
    )


def is_cut_off_metadata(metadata: msgspec.Raw) -> bool:
    """Return whether `metadata` records that an answer was cut off; its `status` has other meanings."""
    text = bytes(metadata)
    if text[:1] != b"{" or not any(part in text for part in _FINISH_FIELD_PARTS):
        return False
    fields = raw_fields_decoder.decode(text)
    return has_cut_off_fields({name: value for name, value in fields.items() if name != "status"})


def has_cut_off_fields(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Return whether the fields of an answer record that it was cut off at a limit on tokens."""
    if any(len(fields.get(name, NOTHING)) and _is_cut_off(bytes(fields[name])) for name in _REASONS):
        return True
    if any(is_true(fields.get(name, NOTHING)) for name in ("truncated", "is_truncated")):
        return True
    if bytes(fields.get("status", NOTHING)) == b'"incomplete"':
        return True
    return any(has_cut_off_fields(decode_first_object(fields[name])) for name in _RESPONSES if name in fields)


def _is_cut_off(value: bytes) -> bool:
    return len(value) < _LONGEST_REASON and _is_cut_off_reason(value)


@lru_cache(256)  # there are few reasons, and many rows
def _is_cut_off_reason(value: bytes) -> bool:
    reason = msgspec.json.decode(value)
    reasons = [reason.get("type"), reason.get("reason")] if isinstance(reason, dict) else [reason]
    return any(map(is_cut_off, reasons))
