"""Conversations in ShareGPT's form: `conversations` of `from` and `value`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    add_system_prompt,
    as_chat,
    as_dicts,
    find_verdict,
    first_text,
    is_share_gpt,
    openai_tools,
)
from rollmill.corpus.producers.trl import apply_label, preference_sides
from rollmill.files.rows import Row

ENTRY = ProducerEntry("sharegpt", "ShareGpt", "conversations of `from` and `value`")

_FIELDS = ("conversations", "conversation")
_NAMES = ("instance_id", "id", "conversation_id", "uid", "idx")
_COPIED_FIELDS = (
    "sample_id", "images", "metadata", "train", "trainable", "weight", "loss_mask", "chat_template_kwargs",
)  # fmt: skip


class ShareGpt:
    """Reads `{"id", "conversations", "system", "tools", ...}`; preferences and `kto_tag` as LLaMA-Factory has them."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a row has a conversation under one of the names for it."""
        return isinstance(document, dict) and "messages" not in document and _turns(document) is not None

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the conversation; with two answers to choose from, one rollout for each."""
        messages = add_system_prompt(_turns(document) or [], document)
        known = {
            "instance_id": first_text(document, _NAMES) or origin.generated_id,
            "tools": openai_tools(document.get("tools")),
            **{name: document[name] for name in _COPIED_FIELDS if name in document},
        }
        preferences = [as_chat([document.get(side)]) for side in ("chosen", "rejected")]
        if all(preferences):
            for side, judgement in preference_sides(document):
                yield known | judgement | {"messages": [*messages, *(as_chat([side]) or [])]}
        else:
            yield apply_label(document, known | find_verdict(document) | {"messages": messages})


def _turns(document: Row) -> list[Row] | None:
    turns = next((as_dicts(document.get(name)) for name in _FIELDS if document.get(name)), None)
    if not turns:
        return None
    if all(_is_exchange(turn) for turn in turns):
        return [message for turn in turns for message in _of_exchange(turn)]
    return as_chat(turns) if all(is_share_gpt(turn) or "role" in turn for turn in turns) else None


def _is_exchange(turn: Row) -> bool:
    """Return whether a turn is a question with its answer, as XTuner writes them."""
    return isinstance(turn.get("input"), str) and isinstance(turn.get("output"), str)


def _of_exchange(turn: Row) -> Chat:
    messages = (("system", turn.get("system")), ("user", turn["input"]), ("assistant", turn["output"]))
    return [{"role": role, "content": content} for role, content in messages if content]
