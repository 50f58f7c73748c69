"""Values of a model's turn, decoded: content, reasoning and calls, which hashes and comparisons are made of."""

from __future__ import annotations

from typing import Any, NamedTuple

from rollmill.corpus.message import Message, PlainMessage, with_all_fields
from rollmill.corpus.normalize_messages import MessageNormalizer
from rollmill.corpus.raw_json import decode, parse_text
from rollmill.corpus.tool_calls import PlainCall, PlainFunction


class Values(NamedTuple):
    """The content, reasoning and calls of one turn of the model, decoded."""

    content: Any
    reasoning: Any
    calls: Any


def decode_turn_values(turn: Message) -> Values:
    """Return a turn's values: arguments of calls decoded where they are JSON, without the random ids of the calls."""
    normalized = MessageNormalizer(with_all_fields(turn), iter(())).turn() if isinstance(turn, PlainMessage) else turn
    calls = decode(normalized.tool_calls) if len(normalized.tool_calls) else None
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            call.pop("id", None)
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                function["arguments"] = parse_text(function["arguments"])
    content = decode(normalized.content) if len(normalized.content) else None
    reasoning = decode(normalized.reasoning_content) if len(normalized.reasoning_content) else None
    return Values(content, reasoning, calls)


def decode_plain_values(turn: PlainMessage, calls: list[PlainCall]) -> Values:
    """Return the same as `decode_turn_values`, in less time, for a message whose calls `plain_calls_of` returned."""
    content = decode(turn.content) if len(turn.content) else None
    return Values(content, None, [_call_values(call.function) for call in calls] or None)


def _call_values(function: PlainFunction) -> dict[str, Any]:
    arguments = decode(function.arguments)
    if isinstance(arguments, str):
        arguments = parse_text(arguments)
    return {"type": "function", "function": {"name": function.name, "arguments": arguments}}
