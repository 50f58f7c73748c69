"""What the model wrote in a conversation: how often, whether it is anything at all, and a hash of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import orjson
import xxhash

from rollmill.corpus.message_forms import (
    NOTHING,
    CallPairing,
    OpenCalls,
    PlainCall,
    PlainMessage,
    ScannedMessage,
    Values,
    has_analysis,
    in_one_form,
    open_calls,
    plain_calls,
    plain_values,
    turn_values,
    without_nulls,
)
from rollmill.corpus.record import has_code_points

_VISIBLE = re.compile(rb'"(?:\s|\\[nrtbf])*[!#-\[\]-~]')


class WrittenColumns(NamedTuple):
    """The table's columns that are about messages; None where nothing was recorded."""

    messages: int | None = None
    turns: int | None = None
    empty: bool | None = None
    reasoning_only: bool | None = None
    unanswered_calls: int | None = None
    stray_results: int | None = None
    completion_hash: int | None = None


def written(
    messages: Sequence[PlainMessage] | None, *, hashed: bool = True, code_points: bool = True
) -> WrittenColumns:
    r"""Return the table's columns that are about messages; without `code_points` no JSON has a `\u` escape.

    Without `hashed` there is no hash and calls are not paired, which costs as much as all the rest.

    The hash is of the text and the thoughts, however they were written down: not of escapes, of white space and the
    order of keys in lists of parts, of null fields, of the form of tool calls, or of the ids that a server gave them.
    Raises `orjson.JSONDecodeError` for a number beyond a float's range in a list of parts or in tool calls.
    """
    if messages is None:
        return WrittenColumns()
    every = list(map(_role, messages))
    roles = {*every}
    if not roles <= _KNOWN or has_analysis(messages):
        return _in_other_roles(messages, hashed=hashed)
    if not hashed and _begins_with_text(messages, every):
        return WrittenColumns(len(messages), every.count("assistant"), False, False)
    turns = [message for message in messages if message.role == "assistant"]
    if not hashed:
        return _of_values(len(messages), [turn_values(turn) for turn in turns], None)
    if roles.isdisjoint(_ANSWERING) and all(map(_is_text, turns)):
        # Nearly all messages are plain text, whose JSON is hashed as it stands, without being decoded. Only where JSON
        # has several ways to write the same (lists of parts, tool calls, `\u` escapes) it is brought into one.
        contents = [bytes(turn.content) for turn in turns]
        text = contents[0] if len(contents) == 1 else b"\0".join(contents)  # JSON has no NUL: no two lists join alike
        if not (code_points and has_code_points(text)):
            # The first sign after the quote tells it of most; a text of signs beyond ASCII is decoded to be sure.
            visible = text[1:2].isalnum() or _VISIBLE.match(text)
            empty = not visible and all(_is_blank(orjson.loads(content)) for content in contents)
            digest = xxhash.xxh3_64_intdigest(text)
            return WrittenColumns(len(messages), len(turns), empty, False, *_NO_CALLS, digest)
    calls = [plain_calls(message) for message in messages]
    if None in calls:
        opened = open_calls(in_one_form([copy(message) for message in messages]))
        return _of_values(len(messages), [turn_values(turn) for turn in turns], opened)
    return _with_plain_calls(messages, calls)  # type: ignore[arg-type]  # none is None


_ANSWERING = frozenset({"tool", "function"})
_KNOWN = _ANSWERING | {"user", "system", "developer", "assistant", "exit"}
_NO_CALLS = OpenCalls(0, 0)
_QUOTE = 0x22
_role = attrgetter("role")


def _begins_with_text(messages: Sequence[PlainMessage], roles: list[str]) -> bool:
    """Return whether the model's first turn begins with a letter or a digit: it is not empty."""
    first = bytes(messages[roles.index("assistant")].content) if "assistant" in roles else b""
    return first[:1] == b'"' and first[1:2].isalnum()


def _is_text(turn: PlainMessage) -> bool:
    """Return whether a turn of the model is text and nothing else, however it is marked."""
    content = turn.content
    return (
        turn.tool_calls is NOTHING
        and turn.reasoning_content is NOTHING
        and len(content) > 0
        and memoryview(content)[0] == _QUOTE
        and (type(turn) is PlainMessage or _has_one_form(turn))
    )


def _has_one_form(turn: PlainMessage) -> bool:
    """Return whether there are neither thoughts nor calls in another form than OpenAI's."""
    return not isinstance(turn, ScannedMessage) or (
        turn.reasoning is NOTHING
        and turn.thinking is NOTHING
        and turn.thought is NOTHING
        and turn.thoughts is NOTHING
        and turn.reasoning_text is NOTHING
        and turn.analysis is NOTHING
        and turn.provider_specific_fields is NOTHING
        and turn.invalid_tool_calls is NOTHING
        and turn.function_call is NOTHING
        and turn.thinking_blocks is NOTHING
        and turn.reasoning_details is NOTHING
        and turn.additional_kwargs is NOTHING
        and turn.channel is NOTHING
    )


def _with_plain_calls(messages: Sequence[PlainMessage], calls: list[list[PlainCall]]) -> WrittenColumns:
    pairing = CallPairing()
    values = []
    for message, called in zip(messages, calls, strict=True):
        if message.role == "assistant":
            pairing.call([call.id for call in called])
            values.append(plain_values(message, called))
        elif message.role == "tool":
            pairing.answer(message.tool_call_id)
    return _of_values(len(messages), values, pairing.open())


def _in_other_roles(messages: Sequence[PlainMessage], *, hashed: bool) -> WrittenColumns:
    """Return the same of messages of which some have no role, or one of their producer's own."""
    turns = in_one_form(list(messages))
    values = [turn_values(turn) for turn in turns if turn.role == "assistant"]
    return _of_values(len(messages), values, open_calls(turns) if hashed else None)


def _of_values(messages: int, values: list[Values], opened: OpenCalls | None) -> WrittenColumns:
    empty = all(_is_blank(turn.content) and not turn.calls for turn in values)
    thoughts = empty and any(turn.reasoning for turn in values)
    if opened is None:
        return WrittenColumns(messages, len(values), empty, thoughts)
    digest = xxhash.xxh3_64_intdigest(b"\0".join(map(_canonical_form, values)))
    return WrittenColumns(messages, len(values), empty, thoughts, *opened, digest)


def _canonical_form(values: Values) -> bytes:
    content, reasoning, calls = values
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        [part] = content
        content = part["text"] if part.keys() == {"type", "text"} and part["type"] == "text" else content
    more = [each for each in (reasoning, calls) if each]
    form = _dump(content or "")
    return form + b"\1" + _dump([reasoning or None, calls or None]) if more else form


def _dump(value: Any) -> bytes:
    try:
        form = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a number of more than 64 bits, or values nested beyond its bounds
        return msgspec.json.encode(without_nulls(value), order="sorted")
    return orjson.dumps(without_nulls(value), option=orjson.OPT_SORT_KEYS) if b"null" in form else form


def _is_blank(content: Any) -> bool:
    """Return whether a content is nothing but white space; of a list of parts, each of them."""
    if isinstance(content, str):
        return not content.strip()
    if isinstance(content, list):
        return all(_is_blank(part) for part in content)
    if isinstance(content, dict):
        return all(_is_blank(item) for key, item in content.items() if key != "type")
    return content is None
