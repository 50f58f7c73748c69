"""Conversations in the form of ShareGPT: `conversations` of `from` and `value`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    chat,
    first_text,
    is_share_gpt,
    objects,
    openai_tools,
    verdict,
    with_system,
)
from rollmill.corpus.producers.trl import labelled, sides
from rollmill.files.rows import Row

ENTRY = ProducerEntry("sharegpt", "ShareGpt", "conversations of `from` and `value`")

_FIELDS = ("conversations", "conversation")
_NAMES = ("instance_id", "id", "conversation_id", "uid", "idx")
_KEPT = ("sample_id", "images", "metadata", "train", "trainable", "weight", "loss_mask", "chat_template_kwargs")


class ShareGpt:
    """Reads `{"id", "conversations", "system", "tools", ...}`; preferences and `kto_tag` as LLaMA-Factory has them."""

    def is_one(self, document: Any) -> bool:
        """Return whether a row has a conversation under one of the names for it."""
        return isinstance(document, dict) and "messages" not in document and _turns(document) is not None

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the conversation, or with two answers to choose from one rollout for each."""
        messages = with_system(_turns(document) or [], document)
        known = {
            "instance_id": first_text(document, _NAMES) or origin.made_id,
            "tools": openai_tools(document.get("tools")),
            **{name: document[name] for name in _KEPT if name in document},
        }
        preferences = [chat([document.get(side)]) for side in ("chosen", "rejected")]
        if all(preferences):
            for side, judgement in sides(document):
                yield known | judgement | {"messages": [*messages, *(chat([side]) or [])]}
        else:
            yield labelled(document, known | verdict(document) | {"messages": messages})


def _turns(document: Row) -> list[Row] | None:
    found = next((objects(document.get(name)) for name in _FIELDS if document.get(name)), None)
    if not found:
        return None
    if all(_is_exchange(turn) for turn in found):
        return [message for turn in found for message in _of_exchange(turn)]
    return chat(found) if all(is_share_gpt(turn) or "role" in turn for turn in found) else None


def _is_exchange(turn: Row) -> bool:
    """Return whether a turn is a question and its answer together, as XTuner has them."""
    return isinstance(turn.get("input"), str) and isinstance(turn.get("output"), str)


def _of_exchange(turn: Row) -> Chat:
    said = (("system", turn.get("system")), ("user", turn["input"]), ("assistant", turn["output"]))
    return [{"role": role, "content": content} for role, content in said if content]
