"""What the model wrote in a conversation: how often, whether it is anything at all, and a hash of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import xxhash

from rollmill.corpus.record import NOTHING, Message

_VISIBLE = re.compile(rb'"(?:\s|\\[nrtbf])*[!#-\[\]-~]')
_ESCAPE = b"\\u"
_PAIR = np.dtype("<u2")
_ESCAPE_PAIR = int.from_bytes(_ESCAPE, "little")
_LARGE = 4 << 10


Written = tuple[int | None, int | None, bool | None, int | None]


def written(messages: Sequence[Message] | None, *, hashed: bool = True) -> Written:
    """The table's `messages`, `turns`, `empty` and `completion_hash`; None where nothing was recorded.

    Without `hashed` there is no hash, which costs as much as all the rest.

    The hash is of the text, however it was written down: not of escapes, of white space and the order of keys in lists
    of parts, of null fields, or of the ids that a server gave to tool calls. Raises `orjson.JSONDecodeError` for a
    number beyond a float's range in a list of parts or in tool calls.
    """
    if messages is None:
        return None, None, None, None
    if not hashed:
        turns = [message for message in messages if message.role == "assistant"]
        return len(messages), len(turns), _are_empty(turns), None
    contents, only_text = [], True
    for message in messages:
        if message.role == "assistant":
            content = bytes(message.content)
            contents.append(content)
            if content[:1] != b'"' or message.tool_calls is not NOTHING or message.reasoning_content is not NOTHING:
                only_text = False
    text = contents[0] if len(contents) == 1 else b"\0".join(contents)
    if only_text and not _has_code_points(text):
        visible = text[1:2].isalnum() or _VISIBLE.match(text)
        empty = not visible and all(_is_blank(orjson.loads(content)) for content in contents)
    else:
        values = [_values(message) for message in messages if message.role == "assistant"]
        text = b"\0".join(_one_form(each) for each in values)
        empty = all(_is_blank(content) and not calls for content, _, calls in values)
    return len(messages), len(contents), empty, xxhash.xxh3_64_intdigest(text)


def _are_empty(turns: list[Message]) -> bool:
    first = bytes(turns[0].content) if turns else b""
    if first[:1] == b'"' and first[1:2].isalnum():
        return False
    return all(_is_blank(content) and not calls for content, _, calls in map(_values, turns))


def _has_code_points(text: bytes) -> bool:
    r"""Whether there may be a `\u` escape in it, for which writers of JSON have more than one form."""
    if len(text) < _LARGE:
        return _ESCAPE in text
    even = np.frombuffer(text, _PAIR, len(text) // 2)  # three times as fast as `in`, which is slow for two characters
    odd = np.frombuffer(text, _PAIR, (len(text) - 1) // 2, offset=1)
    return bool(np.count_nonzero(even == _ESCAPE_PAIR) or np.count_nonzero(odd == _ESCAPE_PAIR))


def _values(turn: Message) -> tuple[Any, Any, Any]:
    """A message's content, reasoning and tool calls."""
    content, reasoning, calls = (
        orjson.loads(text) if (text := bytes(raw)) else None
        for raw in (turn.content, turn.reasoning_content, turn.tool_calls)
    )
    if isinstance(calls, list):
        calls = [{**call, "id": None} if isinstance(call, dict) else call for call in calls]
    return content, reasoning, calls


def _one_form(values: tuple[Any, Any, Any]) -> bytes:
    content, reasoning, calls = values
    more = [each for each in (reasoning, calls) if each]
    form = _dump(content or "")
    return form + b"\1" + _dump([reasoning or None, calls or None]) if more else form


def _dump(value: Any) -> bytes:
    return orjson.dumps(_without_nulls(value), option=orjson.OPT_SORT_KEYS)


def _without_nulls(value: Any) -> Any:
    """Null fields left out: where rows share columns, a field that one row has is null in all others."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _is_blank(content: Any) -> bool:
    """Whether a content is nothing but white space; of a list of parts, each of them."""
    if isinstance(content, str):
        return not content.strip()
    if isinstance(content, list):
        return all(_is_blank(part) for part in content)
    if isinstance(content, dict):
        return all(_is_blank(item) for key, item in content.items() if key != "type")
    return content is None
