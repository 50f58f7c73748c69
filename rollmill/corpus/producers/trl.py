"""Rows in TRL's dataset formats: messages, prompt and completion with a label or not, chosen and rejected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    add_system_prompt,
    as_boolean,
    as_chat,
    as_dict,
    as_number,
    find_verdict,
    first_text,
    make_verdict,
    messages_before_answer,
    prompt_id,
)
from rollmill.files.rows import Row
from rollmill.records import PREFERENCE, REJECTED

ENTRY = ProducerEntry("trl", "Trl", "messages, prompt and completion, chosen and rejected", last=True)

_NAMES = ("problem_id", "prompt_id", "question_id", "task_id")
_SIDES = ("chosen", REJECTED)
_SIDES_OF_OPENAI = ("preferred_output", "non_preferred_output")
_TURN = re.compile(r"(?:\A|\n)\n(Human|Assistant):")
"""Beginning of a turn in Anthropic's preference data sets, which have conversations as one text."""


class Trl:
    """Reads rows that have no id: rows with equal prompts belong to the same problem."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a row has one of TRL's formats, and no id of its problem."""
        if not isinstance(document, dict) or "instance_id" in document:
            return False
        if as_dict(document.get("metadata")).get("instance_id") is not None:
            return False
        return (
            _has(document, *_SIDES)
            or _has(document, "input", *_SIDES_OF_OPENAI)
            or _has(document, "prompt", "completion")
            or (as_chat(document.get("messages")) is not None and "trajectory" not in document)
        )

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield one rollout; of a preference one for each side, the rejected one as a failure of the model."""
        if _has(document, "input", *_SIDES_OF_OPENAI):
            document = _of_openai(document)
        if _has(document, *_SIDES):
            yield from self._preference(document)
            return
        messages = as_chat(document.get("messages"))
        prompt = messages_before_answer(messages) if messages else document.get("prompt")
        named = first_text(document, _NAMES) or prompt_id(_chat_or_text(prompt))
        turns = {"messages": add_system_prompt(messages, document)} if messages else {}
        yield apply_label(document, document | turns | find_verdict(document) | {"instance_id": named})

    def _preference(self, document: Row) -> Iterator[Row]:
        known = {key: value for key, value in document.items() if key not in (*_SIDES, "prompt")}
        for side, side_verdict in preference_sides(document):
            turns = as_chat(side) or _turns_of_text(side) or [{"role": "assistant", "content": side}]
            # Without a prompt, or with one that is text, the sides of some data sets are whole conversations.
            is_answer = turns[0].get("role") == "assistant"
            prompt = _prompt(document.get("prompt")) if is_answer else []
            messages = [*prompt, *turns]
            named = first_text(document, _NAMES) or prompt_id(messages_before_answer(messages))
            yield known | side_verdict | {"instance_id": named, "messages": messages}


def _of_openai(document: Row) -> Row:
    """Return a preference in OpenAI's fine-tuning form as one of TRL's."""
    request = as_dict(document["input"])
    sides = dict(zip(_SIDES, (document[name] for name in _SIDES_OF_OPENAI), strict=True))
    rest = {key: value for key, value in document.items() if key not in ("input", *_SIDES_OF_OPENAI)}
    return rest | {"prompt": request.get("messages"), "tools": request.get("tools"), **sides}


def _turns_of_text(conversation: Any) -> Chat:
    """Return the turns of a conversation that is one text; none where it is an answer alone."""
    if not isinstance(conversation, str) or not conversation.startswith("\n\nHuman:"):
        return []
    _, *pieces = _TURN.split(conversation)
    speakers = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": speakers[name], "content": text.strip()} for name, text in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def preference_sides(document: Row) -> Iterator[tuple[Any, Row]]:
    """Yield the two sides of a preference, each with its verdict (from its own score, if it has one) and its name."""
    for name in _SIDES:
        score = as_number(document.get(f"score_{name}"))
        side_verdict = make_verdict(float(name == "chosen") if score is None else score, name == "chosen")
        yield document.get(name), side_verdict | {"metadata": as_dict(document.get("metadata")) | {PREFERENCE: name}}


def apply_label(document: Row, rollout: Row) -> Row:
    """Return a row's rollout with the verdict of its KTO label, which says whether the answer is desirable.

    An undesirable answer is treated as the rejected side of a preference.
    """
    label = kto_label(document)
    if label is None:
        return rollout
    rejected = {} if label else {"metadata": as_dict(rollout.get("metadata")) | {PREFERENCE: REJECTED}}
    return rollout | make_verdict(None, label) | rejected


def kto_label(document: Mapping[str, Any]) -> bool | None:
    """Return a row's label for KTO (LLaMA-Factory's name is `kto_tag`); None for a row without one.

    Beside messages only true and false count: 0 and 1 may be classes.
    """
    values = [document.get(name) for name in ("label", "kto_tag")]
    label = next((value for value in values if value is not None), None)
    if isinstance(label, bool):
        return label
    return as_boolean(label) if _has(document, "prompt", "completion") else None


def _has(document: Mapping[str, Any], *names: str) -> bool:
    return all(document.get(name) is not None for name in names)


def _chat_or_text(prompt: Any) -> Any:
    """Return a prompt as messages; text is a user's message."""
    return as_chat(prompt) or [{"role": "user", "content": prompt}]


def _prompt(prompt: Any) -> Chat:
    return [] if prompt is None else _chat_or_text(prompt)
