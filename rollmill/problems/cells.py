"""Convert one value of a row to an id, an answer, a prompt or a further field."""

from __future__ import annotations

import math
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from rollmill.records import Message


class Missing:
    """Type of `MISSING`: the row has no such column, as opposed to a null in it."""


MISSING: Final = Missing()

IMAGE_MARKER = "<image>"
"""Marks the position of an image in a prompt's text."""

PLACEHOLDER: Final = object()
"""Stands for an image part without content: its content is the next image of the row's image column."""

_IMAGE_PARTS = ("image", "image_url", "input_image")
_IMAGE_KEYS = ("image", "image_url", "url", "path", "base64", "source")
_TEXT_PARTS = ("text", "input_text", None)
_MAX_DEPTH = 100
_EXACT_INTEGERS = 2**63
"""JSON parsers read integers from here on as floats."""
_FULL_DIGITS = 16
"""Significant digits from which a float may have been rounded."""
_DROPPED = object()
"""Returned for a value that JSON cannot hold."""


class UnusableCellError(Exception):
    """Raised for a row with an unusable value. Rows are counted by `reason`; `detail` varies from row to row."""

    def __init__(self, field: str | None, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.field = field


def read_id(value: Any, field: str) -> str:
    """Return the instance id as text. Raises `UnusableCellError`."""
    return _text_or_number(value, field)


def read_answer(value: Any, field: str) -> str:
    """Return the ground truth as text that keeps the value: 7 is `7`, 3.5 is `3.5`. Raises `UnusableCellError`."""
    return _text_or_number(value, field)


def read_answers(value: Any, field: str) -> tuple[str, ...]:
    """Return the distinct equivalent ground truths: the items of a list, or one. Raises `UnusableCellError`."""
    value = _parse_json_list(value)
    if not isinstance(value, list):
        return (read_answer(value, field),)
    if not value:
        raise UnusableCellError(field, "is an empty list")
    return tuple(dict.fromkeys(read_answer(item, field) for item in value))


def _parse_json_list(value: Any) -> Any:
    """Parse a JSON text of a list with one text, as some data sets in verl's format hold it; return others as is."""
    if not isinstance(value, str) or not (value.startswith('["') and value.endswith('"]')):
        return value
    try:
        items = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    return items if len(items) == 1 and isinstance(items[0], str) else value


def read_prompt(value: Any, field: str, images: list[Any] | None = None) -> str | list[Message]:
    """Return the question: the text unchanged, or chat messages without an assistant turn at the end.

    The content of each message becomes text. Each image part becomes `<image>` in it, and its cell is appended to
    `images`, or `PLACEHOLDER` for a part without content. Raises `UnusableCellError`.
    """
    cells = [] if images is None else images
    _require(value, field)
    if isinstance(value, str):
        if not value.strip():
            raise UnusableCellError(field, "is empty")
        return value
    if not isinstance(value, list):
        raise UnusableCellError(field, "expected text or chat messages", f"found {_kind(value)}")
    ends_with_answer = bool(value) and isinstance(value[-1], dict) and value[-1].get("role") == "assistant"
    messages = [_read_message(message, field, cells) for message in (value[:-1] if ends_with_answer else value)]
    if not messages or messages[-1]["role"] == "assistant":
        raise UnusableCellError(field, "holds no turn to answer")
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise UnusableCellError(field, "holds no user turn with text")
    return messages


def read_response(value: Any, field: str) -> str | None:
    """Return the text of the assistant turn at the end of chat messages; None if there is none.

    Raises `UnusableCellError`.
    """
    last = value[-1] if isinstance(value, list) and value else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return None
    return _read_content(last.get("content"), field, []) or None


def read_fields(row: dict[str, Any]) -> dict[str, Any]:
    """Convert a row to what JSON can hold; bytes are dropped. Raises `UnusableCellError`."""
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
    # bool is a subclass of int.
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise UnusableCellError(field, "expected text or a number", f"found {_kind(value)}")
    if not math.isfinite(value):
        raise UnusableCellError(field, "is not a finite number", str(value))
    if isinstance(value, float) and _lost_digits(value):
        raise UnusableCellError(field, "is an integer too large to be read exactly", f"write it as text ({value!r})")
    return str(value)


def _lost_digits(value: float) -> bool:
    """Return whether a float was an integer beyond 64 bits in JSON, whose last digits the parser rounded away."""
    digits = repr(value).partition("e")[0].replace(".", "").strip("-0")
    return abs(value) >= _EXACT_INTEGERS and len(digits) >= _FULL_DIGITS


def _read_message(message: Any, field: str, images: list[Any]) -> Message:
    if not isinstance(message, dict):
        raise UnusableCellError(field, "expected chat messages", f"found {_kind(message)} among them")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise UnusableCellError(field, "holds a message without a role")
    rest = {key: value for key, value in message.items() if key not in {"role", "content"} and value is not None}
    return {"role": role, "content": _read_content(message.get("content"), field, images), **read_fields(rest)}


def _read_content(content: Any, field: str, images: list[Any]) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UnusableCellError(field, "holds a message without text", f"content is {_kind(content)}")
    return "".join(_read_part(part, field, images) for part in content)


def _read_part(part: Any, field: str, images: list[Any]) -> str:
    """Return a part's text, or the marker of an image, whose cell goes into `images`."""
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and (kind in _IMAGE_PARTS or (kind is None and _image_cell(part) is not PLACEHOLDER)):
        images.append(_image_cell(part))
        return IMAGE_MARKER
    if isinstance(part, dict) and kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    raise UnusableCellError(field, "holds a content part that is neither text nor image", str(kind))


def _image_cell(part: dict[str, Any]) -> Any:
    """Return the image cell of a content part; `PLACEHOLDER` if the part has no content.

    Qwen's and Transformers' parts have `image`, `url`, `path` or `base64`, OpenAI's `image_url`, Anthropic's `source`.
    """
    for key in _IMAGE_KEYS:
        cell = part.get(key)
        # OpenAI nests `{"url": ...}`, Anthropic `{"data": ...}`; `{"bytes", "path"}` is a cell as it is.
        while isinstance(cell, dict) and not cell.get("bytes"):
            cell = next((cell[inner] for inner in ("path", "url", "data") if cell.get(inner)), None)
        if cell:
            return cell
    return PLACEHOLDER


def _to_json(value: Any, field: str, depth: int) -> Any:
    """Convert a value to what JSON can hold; `_DROPPED` if that is impossible. `depth` counts enclosing containers."""
    if depth > _MAX_DEPTH:
        raise UnusableCellError(field, "is nested too deeply", f"more than {_MAX_DEPTH} levels")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        # orjson writes signed and unsigned 64-bit integers.
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
