"""The table's columns about messages: number of turns, emptiness, open tool calls, a hash of what the model wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import orjson
import xxhash

from rollmill.corpus.call_pairing import CallPairing, OpenCalls, count_open_calls
from rollmill.corpus.json_repair import has_unicode_escape
from rollmill.corpus.message import PlainMessage, ScannedMessage
from rollmill.corpus.message_roles import has_analysis
from rollmill.corpus.normalize_messages import normalize_messages
from rollmill.corpus.raw_json import NOTHING, QUOTE, without_nulls
from rollmill.corpus.tool_calls import PlainCall, plain_calls_of
from rollmill.corpus.turn_values import Values, decode_plain_values, decode_turn_values

_VISIBLE = re.compile(rb'"(?:\s|\\[nrtbf])*[!#-\[\]-~]')
"""A JSON string with a visible ASCII character after blanks."""
_RESULT_ROLES = frozenset({"tool", "function"})
_KNOWN_ROLES = _RESULT_ROLES | {"user", "system", "developer", "assistant", "exit"}
_NO_CALLS = OpenCalls(0, 0)
_role = attrgetter("role")


class MessageColumns(NamedTuple):
    """The table's columns about messages; None where no messages were recorded."""

    messages: int | None = None
    turns: int | None = None
    empty: bool | None = None
    reasoning_only: bool | None = None
    unanswered_calls: int | None = None
    stray_results: int | None = None
    completion_hash: int | None = None


def compute_message_columns(
    messages: Sequence[PlainMessage] | None, *, hashed: bool = True, has_escapes: bool = True
) -> MessageColumns:
    r"""Return the table's columns about a record's messages.

    The hash covers text, reasoning and calls, however they were written: it ignores escapes, white space and the order
    of keys in lists of parts, null fields, the form of tool calls, and the ids that a server gave them. Raises
    `orjson.JSONDecodeError` for a number beyond a float's range in a list of parts or in tool calls.

    Args:
        messages: messages as `Record.recorded_messages` returns them.
        hashed: without it there is no hash and calls are not paired, which takes as long as all the rest.
        has_escapes: whether the record's JSON may contain a `\u` escape.
    """
    if messages is None:
        return MessageColumns()
    roles = list(map(_role, messages))
    unique_roles = {*roles}
    # Normalization alone knows which turns of other roles are the model's.
    if not unique_roles <= _KNOWN_ROLES or has_analysis(messages):
        return _columns_of_normalized(messages, hashed=hashed)
    # Four ways follow, from the fastest, which most records can take, to the one that decodes every message.
    if not hashed and _begins_with_text(messages, roles):
        return MessageColumns(len(messages), roles.count("assistant"), False, False)
    turns = [message for message in messages if message.role == "assistant"]
    if not hashed:
        return _columns_of_values(len(messages), [decode_turn_values(turn) for turn in turns], None)
    if unique_roles.isdisjoint(_RESULT_ROLES) and all(map(_is_text, turns)):
        # Nearly all messages are plain text, whose JSON is hashed as it is spelt, without being decoded. JSON that may
        # be spelt in several ways (lists of parts, tool calls, `\u` escapes) is decoded and written in one way below.
        contents = [bytes(turn.content) for turn in turns]
        text = contents[0] if len(contents) == 1 else b"\0".join(contents)  # JSON has no NUL: no two lists join alike
        if not (has_escapes and has_unicode_escape(text)):
            # The first character after the quote decides it for most; text beyond ASCII is decoded to be sure.
            is_visible = text[1:2].isalnum() or _VISIBLE.match(text)
            empty = not is_visible and all(_is_blank(orjson.loads(content)) for content in contents)
            digest = xxhash.xxh3_64_intdigest(text)
            return MessageColumns(len(messages), len(turns), empty, False, *_NO_CALLS, digest)
    calls = [plain_calls_of(message) for message in messages]
    if None in calls:
        # Normalization changes messages in place, and the record is still read afterwards.
        open_calls = count_open_calls(normalize_messages([copy(message) for message in messages]))
        return _columns_of_values(len(messages), [decode_turn_values(turn) for turn in turns], open_calls)
    return _columns_of_plain_calls(messages, calls)  # type: ignore[arg-type]  # none is None


def _begins_with_text(messages: Sequence[PlainMessage], roles: list[str]) -> bool:
    """Return whether the model's first turn begins with a letter or a digit, and so is not empty."""
    first = bytes(messages[roles.index("assistant")].content) if "assistant" in roles else b""
    return first[:1] == b'"' and first[1:2].isalnum()


def _is_text(turn: PlainMessage) -> bool:
    """Return whether a turn of the model is text and nothing else; it may be excluded from training."""
    content = turn.content
    return (
        turn.tool_calls is NOTHING
        and turn.reasoning_content is NOTHING
        and len(content) > 0
        and memoryview(content)[0] == QUOTE
        and (type(turn) is PlainMessage or _has_no_other_reasoning_or_calls(turn))
    )


def _has_no_other_reasoning_or_calls(turn: PlainMessage) -> bool:
    """Return whether a message has neither reasoning nor calls under names other than OpenAI's."""
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


def _columns_of_plain_calls(messages: Sequence[PlainMessage], calls: list[list[PlainCall]]) -> MessageColumns:
    pairing = CallPairing()
    values = []
    for message, message_calls in zip(messages, calls, strict=True):
        if message.role == "assistant":
            pairing.add_calls([call.id for call in message_calls])
            values.append(decode_plain_values(message, message_calls))
        elif message.role == "tool":
            pairing.add_result(message.tool_call_id)
    return _columns_of_values(len(messages), values, pairing.open_calls())


def _columns_of_normalized(messages: Sequence[PlainMessage], *, hashed: bool) -> MessageColumns:
    """Return the columns of messages of which some have no role, or one that only their producer uses."""
    turns = normalize_messages(list(messages))
    values = [decode_turn_values(turn) for turn in turns if turn.role == "assistant"]
    return _columns_of_values(len(messages), values, count_open_calls(turns) if hashed else None)


def _columns_of_values(messages: int, values: list[Values], open_calls: OpenCalls | None) -> MessageColumns:
    """Return the columns from decoded turns.

    Args:
        messages: number of all messages.
        values: the model's turns.
        open_calls: calls and results without counterpart; None: neither these nor the hash are asked for.
    """
    empty = all(_is_blank(turn.content) and not turn.calls for turn in values)
    reasoning_only = empty and any(turn.reasoning for turn in values)
    if open_calls is None:
        return MessageColumns(messages, len(values), empty, reasoning_only)
    digest = xxhash.xxh3_64_intdigest(b"\0".join(map(_canonical_form, values)))
    return MessageColumns(messages, len(values), empty, reasoning_only, *open_calls, digest)


def _canonical_form(values: Values) -> bytes:
    """Return one spelling of a turn: the same for all ways to write it; of text alone its JSON, as in the fast way."""
    content, reasoning, calls = values
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        [part] = content
        content = part["text"] if part.keys() == {"type", "text"} and part["type"] == "text" else content
    form = _dump(content or "")
    # Reasoning and calls follow only where there are any: text alone has to hash like its own JSON.
    return form + b"\1" + _dump([reasoning or None, calls or None]) if reasoning or calls else form


def _dump(value: Any) -> bytes:
    try:
        form = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a number of more than 64 bits, or values nested too deep for orjson
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
