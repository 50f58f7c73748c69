"""A digest of a row's conversation, by which recorded tokens are matched with the text that they were sampled as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import xxhash

_TEXTS = ("prompt", "completion", "reasoning_content")
_CHATS = ("messages", "trajectory", "prompt", "completion")
_TEMPLATE_INPUTS = ("tool_calls", "tools", "chat_template_kwargs")
_MESSAGE_KEYS = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name")


def row_digest(row: Mapping[str, Any]) -> str:
    """Return a 64-bit hash, in hexadecimal, of a row's conversation and of the inputs of its chat template.

    It depends on the text of messages, reasoning, tool calls, tools, template arguments, and on truncation. It does not
    depend on scores or metadata, nor on nulls that a writer filled in. `row` has the types that `orjson.loads` returns.
    """
    content: dict[str, Any] = {name: row[name] for name in (*_TEXTS, *_TEMPLATE_INPUTS) if row.get(name)}
    for name in _CHATS:
        if isinstance(messages := row.get(name), list):
            content[name] = [_message(message) for message in messages]
    metadata = row.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("truncated") is True:
        content["truncated"] = True
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    return xxhash.xxh3_64_hexdigest(orjson.dumps(_without_nulls(content), option=options))


def _message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    return {name: message[name] for name in _MESSAGE_KEYS if message.get(name)}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
