"""Cells: what one value of a row means as an id, an answer, a prompt or a further field."""

from __future__ import annotations

import math
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from rollmill.problems.columns import MISSING
from rollmill.records import Message

IMAGE_MARKER = "<image>"
"""In a prompt's text: an image belongs here."""

_MAX_DEPTH = 100
_EXACT_INTEGERS = 2**63
_FULL_DIGITS = 16
_DROPPED = object()


class UnusableCellError(Exception):
    """A row cannot be used because of what stands in one field. `reason` is a word to count by; `detail` varies."""

    def __init__(self, field: str | None, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.field = field


def read_id(value: Any, field: str) -> str:
    """The instance id as text. Raises `UnusableCellError`."""
    return _text_or_number(value, field)


def read_answer(value: Any, field: str) -> str:
    """The ground truth as text that keeps the value: 7 is `7`, 3.5 is `3.5`. Raises `UnusableCellError`."""
    return _text_or_number(value, field)


def read_prompt(value: Any, field: str) -> str | list[Message]:
    """The question: text as it stands, or chat messages less an assistant turn at their end.

    A message's content comes out as text; parts of type `image` in it become `<image>`.
    Raises `UnusableCellError`.
    """
    _require(value, field)
    if isinstance(value, str):
        if not value.strip():
            raise UnusableCellError(field, "is empty")
        return value
    if not isinstance(value, list):
        raise UnusableCellError(field, "expected text or chat messages", f"found {_kind(value)}")
    messages = [_read_message(message, field) for message in value]
    if messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not messages or messages[-1]["role"] == "assistant":
        raise UnusableCellError(field, "holds no turn to answer")
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise UnusableCellError(field, "holds no user turn with text")
    return messages


def read_response(value: Any, field: str) -> str | None:
    """The text of the assistant turn that chat messages end with; None where there is none.

    Raises `UnusableCellError`.
    """
    last = value[-1] if isinstance(value, list) and value else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return None
    return _read_content(last.get("content"), field) or None


def read_fields(row: dict[str, Any]) -> dict[str, Any]:
    """The columns that JSON can hold, as JSON holds them; bytes are dropped. Raises `UnusableCellError`."""
    fields: dict[str, Any] = {}
    for column, value in row.items():
        kept = _to_json(value, column, 0)
        if kept is not _DROPPED:
            fields[column] = kept
    return fields


def _require(value: Any, field: str) -> None:
    if value is MISSING:
        raise UnusableCellError(field, "is missing")
    if value is None:
        raise UnusableCellError(field, "is null")


def _text_or_number(value: Any, field: str) -> str:
    _require(value, field)
    if isinstance(value, str):
        if not value.strip():
            raise UnusableCellError(field, "is empty")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise UnusableCellError(field, "expected text or a number", f"found {_kind(value)}")
    if not math.isfinite(value):
        raise UnusableCellError(field, "is not a finite number", str(value))
    if isinstance(value, float) and _lost_digits(value):
        raise UnusableCellError(field, "is an integer too large to be read exactly", f"write it as text ({value!r})")
    return str(value)


def _lost_digits(value: float) -> bool:
    """JSON integers beyond 64 bits arrive as floats: full of digits where they were not exact."""
    digits = repr(value).partition("e")[0].replace(".", "").strip("-0")
    return abs(value) >= _EXACT_INTEGERS and len(digits) >= _FULL_DIGITS


def _read_message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise UnusableCellError(field, "expected chat messages", f"found {_kind(message)} among them")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise UnusableCellError(field, "holds a message without a role")
    rest = {key: value for key, value in message.items() if key not in {"role", "content"} and value is not None}
    return {"role": role, "content": _read_content(message.get("content"), field), **read_fields(rest)}


def _read_content(content: Any, field: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UnusableCellError(field, "holds a message without text", f"content is {_kind(content)}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image":
            texts.append(IMAGE_MARKER)
        else:
            raise UnusableCellError(field, "holds a content part that is neither text nor image", str(kind))
    return "".join(texts)


def _to_json(value: Any, field: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise UnusableCellError(field, "is nested too deeply", f"more than {_MAX_DEPTH} levels")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -_EXACT_INTEGERS <= value < 2 * _EXACT_INTEGERS else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        entries = ((str(key), _to_json(item, field, depth + 1)) for key, item in value.items())
        return {key: item for key, item in entries if item is not _DROPPED}
    if isinstance(value, list | tuple):
        items = (_to_json(item, field, depth + 1) for item in value)
        return [item for item in items if item is not _DROPPED]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    return _DROPPED


def _kind(value: Any) -> str:
    names = {bool: "true or false", list: "a list", dict: "an object", str: "text", type(None): "null"}
    return names.get(type(value), type(value).__name__)
