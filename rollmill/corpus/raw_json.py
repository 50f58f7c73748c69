"""JSON values that stay as spelt in a file (`msgspec.Raw`): tests of their kind, decoding, removal of nulls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

NOTHING = msgspec.Raw()
"""The value of a field that a record does not have: a default, so that `is NOTHING` is the fastest test for it.

`len(value) == 0` is also true for a copy of it, `is_absent` for null, too.
"""
NULL = b"null"
EMPTY_TEXT = msgspec.Raw(b'""')
QUOTE = 0x22
"""The first byte of a JSON string: the first byte tells the type of a value, without decoding it."""

raw_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
raw_items_decoder = msgspec.json.Decoder(list[msgspec.Raw])

_FALSE = re.compile(
    rb'false|"(?:false|no|-?0|-1)"|-\d[\d.e+-]*|0(?:\.0*)?(?:e[+-]?\d+)?'
    rb"|\[\s*(?:(?:0(?:\.0*)?|false)\s*,\s*)*(?:0(?:\.0*)?|false)\s*\]"
)
_TRUE = frozenset({b"true", b"1", b"1.0", b'"true"', b'"yes"', b'"1"'})


def is_absent(value: msgspec.Raw) -> bool:
    """Return whether a field is missing or null."""
    return len(value) == 0 or (len(value) == 4 and bytes(value) == NULL)


def null_as_nothing(value: msgspec.Raw) -> msgspec.Raw:
    """Return a value, with `NOTHING` in place of null."""
    return NOTHING if is_absent(value) else value


def is_false(value: msgspec.Raw) -> bool:
    """Return whether a value is false or not above 0, also as text, or a list of nothing but that (a loss mask)."""
    return len(value) > 0 and _FALSE.fullmatch(bytes(value).lower()) is not None


def is_true(value: msgspec.Raw) -> bool:
    """Return whether a value is true or 1, also as text."""
    return len(value) > 0 and bytes(value).lower() in _TRUE


def decode(value: msgspec.Raw) -> Any:
    """Return the decoded value. Raises `msgspec.DecodeError`."""
    return msgspec.json.decode(value)


def encode(value: object) -> msgspec.Raw:
    """Return the value as JSON."""
    return msgspec.Raw(msgspec.json.encode(value))


def parse_object_text(value: msgspec.Raw) -> msgspec.Raw:
    """Return the object that a JSON string contains, as in columns of JSON text; any other value unchanged."""
    if bytes(memoryview(value)[:2]) != b'"{':
        return value
    try:
        text = msgspec.json.decode(value).encode("utf-8", "replace")
        return msgspec.Raw(bytes(msgspec.json.decode(text, type=msgspec.Raw)))
    except (msgspec.DecodeError, RecursionError):
        return value


def parse_raw_text(value: msgspec.Raw) -> msgspec.Raw:
    """Return the object or list that a JSON string contains; any other value unchanged."""
    if bytes(memoryview(value)[:1]) != b'"':
        return value
    try:
        text = msgspec.json.decode(value)
        return msgspec.Raw(bytes(msgspec.json.decode(text, type=msgspec.Raw))) if text[:1] in ("[", "{") else value
    except (msgspec.DecodeError, RecursionError):
        return value


def decode_raw_fields(value: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the fields of an object, or of an object as JSON text; an empty dict for any other value."""
    value = parse_raw_text(value)
    return raw_fields_decoder.decode(value) if bytes(memoryview(value)[:1]) == b"{" else {}


def decode_first_object(value: msgspec.Raw) -> Mapping[str, msgspec.Raw]:
    """Return the fields of an object, or of the first item of a list; an empty dict for any other value."""
    text = bytes(value)
    if text[:1] == b"[":
        text = bytes(next(iter(raw_items_decoder.decode(text)), NOTHING))
    return raw_fields_decoder.decode(text) if text[:1] == b"{" else {}


def parse_text(text: str) -> Any:
    """Return the value that JSON text holds; text that is not JSON unchanged."""
    try:
        return orjson.loads(text)
    except ValueError:
        return text


def has_null_field(value: msgspec.Raw) -> bool:
    """Return whether an object has a null field, which tells that a table's writer added missing fields."""
    return any(map(is_absent, raw_fields_decoder.decode(value).values()))


def without_nulls(value: Any) -> Any:
    """Return a decoded value without null fields, at any depth.

    In a table all rows share their columns: a field that one row has is null in all others.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def without_null_fields(value: msgspec.Raw) -> Any:
    """Return JSON without null fields, at any depth; all other values keep their spelling (`1.0` stays `1.0`)."""
    text = bytes(value)
    if text[:1] == b"{":
        fields = raw_fields_decoder.decode(text)
        return {key: without_null_fields(item) for key, item in fields.items() if not is_absent(item)}
    if text[:1] == b"[":
        return [without_null_fields(item) for item in raw_items_decoder.decode(text)]
    return value
