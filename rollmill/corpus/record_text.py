"""Text of a record: of one content, of everything that the model wrote, of all messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from rollmill.corpus.record import Record


def content_text(content: msgspec.Raw) -> str:
    """Return the text of a message's content; of a list of parts, the text of its text parts, a line each."""
    return "\n".join(_texts(msgspec.json.decode(content) if bytes(content) else None))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part.get("text") if isinstance(part, dict) else part)


def written_text(record: Record) -> str:
    """Return everything that the model wrote, turn by turn: reasoning, content, tool calls as JSON."""
    turns = (turn for turn in record.conversation() or [] if turn.role == "assistant")
    return "\n".join(
        text
        for turn in turns
        for text in (content_text(turn.reasoning_content), content_text(turn.content), bytes(turn.tool_calls).decode())
        if text
    )


def full_text(record: Record) -> str:
    """Return the contents of all messages as text, a line each."""
    return "\n".join(content_text(turn.content) for turn in record.conversation() or [])
