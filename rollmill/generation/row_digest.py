"""A digest of what a row says, by which recorded tokens are known to be those of its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import xxhash

_TEXTS = ("prompt", "completion", "reasoning_content")
_CHATS = ("messages", "trajectory", "prompt", "completion")
_BESIDE = ("tool_calls", "tools", "chat_template_kwargs")
_OF_MESSAGES = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name")


def row_digest(row: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of a row's conversation and of what it was rendered with.

    Rows that differ in any word of a message, in thoughts, calls, tools or template arguments, or in whether they were
    cut off, have different ones; marks, and nulls that a writer filled in, change nothing. `row` holds what
    `orjson.loads` gives.
    """
    said: dict[str, Any] = {name: row[name] for name in (*_TEXTS, *_BESIDE) if row.get(name)}
    for name in _CHATS:
        if isinstance(messages := row.get(name), list):
            said[name] = [_message(message) for message in messages]
    metadata = row.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("truncated") is True:
        said["truncated"] = True
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    return xxhash.xxh3_64_hexdigest(orjson.dumps(_without_nulls(said), option=options))


def _message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    return {name: message[name] for name in _OF_MESSAGES if message.get(name)}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
