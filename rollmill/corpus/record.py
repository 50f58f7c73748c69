"""One record as it stands in a file: its few scalars, and its messages with their contents left as text.

A trajectory is tens of kilobytes and the questions asked of it are about a few numbers. So contents stay the JSON text
that they are (`msgspec.Raw`), and are decoded only where somebody reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from rollmill.files.rows import dump_line

NOTHING = msgspec.Raw()
_NULL = b"null"


class Message(msgspec.Struct, omit_defaults=True, gc=False):
    """One message, with what training needs of it; an agent's bookkeeping (`extra`, times, costs) is left behind."""

    role: str
    content: msgspec.Raw = NOTHING
    """JSON: a string, a list of parts, or null."""
    tool_calls: msgspec.Raw = NOTHING
    tool_call_id: msgspec.Raw = NOTHING
    name: msgspec.Raw = NOTHING
    reasoning_content: msgspec.Raw = NOTHING


Turns = list[Message] | str | None
"""A conversation, or the text of its only message."""


class Record(msgspec.Struct, gc=False):
    """A record's fields: any JSON value in the scalars, since files of others hold any; text in what may be large."""

    instance_id: Any = None
    sample_id: Any = None
    seed: Any = None
    reward: Any = None
    success: Any = None
    speedup: Any = None
    exit_status: Any = None
    error: Any = None
    finish_reason: Any = None
    model_calls: Any = None
    latency_s: Any = None
    usage: Any = None
    messages: list[Message] | None = None
    trajectory: list[Message] | None = None
    prompt: Turns = None
    completion: Turns = None
    verdict: msgspec.Raw = NOTHING
    evaluation_info: msgspec.Raw = NOTHING
    metadata: msgspec.Raw = NOTHING

    def conversation(self) -> list[Message] | None:
        """All messages, the completion last; None where nothing was recorded."""
        turns = self.messages if self.messages is not None else self.trajectory
        turns = _turns(self.prompt, "user") if turns is None else turns
        written = _turns(self.completion, "assistant")
        if written is None:
            return turns
        if turns and turns[-1].role == "assistant" and _same(turns[-1].content, written[-1].content):
            return turns
        return [*(turns or []), *written]


def _same(one: msgspec.Raw, other: msgspec.Raw) -> bool:
    """Whether two contents say the same, however it was written down."""
    if one == other:
        return True
    return bool(bytes(one) and bytes(other)) and bool(msgspec.json.decode(one) == msgspec.json.decode(other))


def _turns(value: Turns, role: str) -> list[Message] | None:
    if isinstance(value, str):
        return [Message(role, msgspec.Raw(orjson.dumps(value)))]
    return value or None


_decoder = msgspec.json.Decoder(Record)


def decode_record(line: bytes | memoryview) -> Record:
    """One record. Raises `msgspec.ValidationError` for fields of a wrong shape, `msgspec.DecodeError` for no JSON."""
    return _decoder.decode(line)


def content_text(content: msgspec.Raw) -> str:
    """The text of one message's content; of a list of parts, the text of its text parts, a line each."""
    return "\n".join(_texts(msgspec.json.decode(content) if bytes(content) else None))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part.get("text") if isinstance(part, dict) else part)


def written_text(record: Record) -> str:
    """Everything that the model wrote, message by message, tool calls as JSON."""
    turns = (turn for turn in record.conversation() or [] if turn.role == "assistant")
    return "\n".join(
        text for turn in turns for text in (content_text(turn.content), bytes(turn.tool_calls).decode()) if text
    )


def whole_text(record: Record) -> str:
    """The text of all messages."""
    return "\n".join(content_text(turn.content) for turn in record.conversation() or [])


def without_non_numbers(line: bytes) -> bytes | None:
    """The line with null for NaN and Infinity, which Python's `json` writes; None where that is not the matter."""
    if b"NaN" not in line and b"Infinity" not in line:
        return None
    try:
        return dump_line(json.loads(line)).rstrip(b"\n")
    except (ValueError, TypeError, RecursionError):
        return None
