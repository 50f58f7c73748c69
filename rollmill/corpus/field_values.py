"""Values of a record's scalar fields: the types that the table accepts, and what is wrong with any other."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

LARGEST_INT = 2**63 - 1
"""The largest whole number of the table's columns."""
MISSING = "missing"
_LONGEST_NUMBER = 19
"""Digits of a number that may be beyond `LARGEST_INT`."""
_LARGEST_FLOAT = sys.float_info.max


class FieldError(Exception):
    """A field whose value has the wrong type.

    Args:
        field: its name.
        reason: `MISSING`, or what is wrong.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def instance_id(value: Any) -> str:
    """Return an id; a number as text. Raises `FieldError`."""
    if type(value) is str and value:
        return value
    if type(value) is int:
        return str(value)
    raise FieldError("instance_id", MISSING if value in (None, "") else f"expected text, found {to_short_json(value)}")


def sample_id(value: Any) -> int | None:
    """Return a sample's number, also of text. Raises `FieldError`.

    Text that is no number is an id of another producer: None, and the sample is numbered within its problem instead.
    """
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) < _LONGEST_NUMBER else None
    return whole_number("sample_id", value)


def number(field: str, value: Any) -> float | None:
    """Return a finite number, true as 1, or None for null. Raises `FieldError`."""
    if value is None:
        return None
    if isinstance(value, (int, float)) and -_LARGEST_FLOAT <= value <= _LARGEST_FLOAT:
        return float(value)
    raise FieldError(field, f"expected a number or null, found {to_short_json(value)}")


def whole_number(field: str, value: Any) -> int | None:
    """Return a whole number from 0 to `LARGEST_INT`, or None for null. Raises `FieldError`."""
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= LARGEST_INT:
        return value
    raise FieldError(field, f"expected a whole number from 0 on, or null, found {to_short_json(value)}")


def boolean(field: str, value: Any) -> bool | None:
    """Return true or false, or None for null. Raises `FieldError`."""
    if value is None or value is True or value is False:
        return value
    if type(value) in (int, float) and value in (0, 1):  # as pandas writes a column of booleans and nulls
        return bool(value)
    raise FieldError(field, f"expected true, false or null, found {to_short_json(value)}")


def number_or_none(value: Any) -> float | None:
    """Return a finite number; None for any other value."""
    return float(value) if type(value) in (int, float) and -_LARGEST_FLOAT <= value <= _LARGEST_FLOAT else None


def count_or_none(value: Any) -> int | None:
    """Return a whole number from 0 to `LARGEST_INT`; None for any other value."""
    return value if type(value) is int and 0 <= value <= LARGEST_INT else None


def text_or_json(value: Any) -> str | None:
    """Return text or None unchanged; any other value as JSON, shortened."""
    return value if value is None or type(value) is str else to_short_json(value)


def to_short_json(value: Any) -> str:
    """Return a value as JSON of at most 80 characters, for messages."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
