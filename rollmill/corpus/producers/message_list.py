"""Bare conversations: a list of messages by itself, as early versions of mini-swe-agent and others wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import as_chat
from rollmill.files.rows import Row

ENTRY = ProducerEntry("messages", "MessageList", "a list of messages by itself", last=True)


class MessageList:
    """Reads `[{"role", "content"}, ...]`."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a document is a list of messages, or of ShareGPT's turns."""
        messages = as_chat(document) if isinstance(document, list) else None
        return messages is not None and all("role" in message for message in messages)

    def rollouts(self, document: list[Any], origin: RowOrigin) -> Iterator[Row]:
        """Yield the one rollout."""
        yield {"instance_id": origin.generated_id, "messages": as_chat(document)}
