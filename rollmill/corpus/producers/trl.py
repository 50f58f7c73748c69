"""Rows as TRL trains on them: messages, prompt and completion with a label or not, chosen and rejected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    before_answer,
    boolean,
    chat,
    fields,
    first_text,
    judged,
    number,
    prompt_id,
    verdict,
    with_system,
)
from rollmill.files.rows import Row
from rollmill.records import PREFERENCE, REJECTED

ENTRY = ProducerEntry("trl", "Trl", "messages, prompt and completion, chosen and rejected", last=True)

_NAMES = ("problem_id", "prompt_id", "question_id", "task_id")
_SIDES = ("chosen", REJECTED)
_SIDES_OF_OPENAI = ("preferred_output", "non_preferred_output")
_TURN = re.compile(r"(?:\A|\n)\n(Human|Assistant):")
"""How Anthropic's data sets of preferences have whole conversations as text."""


class Trl:
    """Reads rows that have no id: rows with equal prompts are of one problem."""

    def is_one(self, document: Any) -> bool:
        """Return whether a row is of one of TRL's kinds, and says nowhere which problem it is of."""
        if not isinstance(document, dict) or "instance_id" in document:
            return False
        if fields(document.get("metadata")).get("instance_id") is not None:
            return False
        return (
            _has(document, *_SIDES)
            or _has(document, "input", *_SIDES_OF_OPENAI)
            or _has(document, "prompt", "completion")
            or (chat(document.get("messages")) is not None and "trajectory" not in document)
        )

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield one rollout; of a preference both sides, the rejected one as a failure of the model."""
        if _has(document, "input", *_SIDES_OF_OPENAI):
            document = _of_openai(document)
        if _has(document, *_SIDES):
            yield from self._preference(document)
            return
        whole = chat(document.get("messages"))
        prompt = before_answer(whole) if whole else document.get("prompt")
        named = first_text(document, _NAMES) or prompt_id(_chat_or_text(prompt))
        turns = {"messages": with_system(whole, document)} if whole else {}
        yield labelled(document, document | turns | verdict(document) | {"instance_id": named})

    def _preference(self, document: Row) -> Iterator[Row]:
        known = {key: value for key, value in document.items() if key not in (*_SIDES, "prompt")}
        for side, judgement in sides(document):
            turns = chat(side) or _turns_of_text(side) or [{"role": "assistant", "content": side}]
            # Without a prompt, or with one that is text, the sides of some data sets are whole conversations.
            is_answer = turns[0].get("role") == "assistant"
            prompt = _prompt(document.get("prompt")) if is_answer else []
            messages = [*prompt, *turns]
            made = prompt_id(before_answer(messages))
            yield known | judgement | {"instance_id": first_text(document, _NAMES) or made, "messages": messages}


def _of_openai(document: Row) -> Row:
    """Return a preference in OpenAI's fine-tuning form as one of TRL's."""
    asked = fields(document["input"])
    sides = dict(zip(_SIDES, (document[name] for name in _SIDES_OF_OPENAI), strict=True))
    rest = {key: value for key, value in document.items() if key not in ("input", *_SIDES_OF_OPENAI)}
    return rest | {"prompt": asked.get("messages"), "tools": asked.get("tools"), **sides}


def _turns_of_text(text: Any) -> Chat:
    """Return the turns of a conversation that is one text; none where it is an answer alone."""
    if not isinstance(text, str) or not text.startswith("\n\nHuman:"):
        return []
    _, *pieces = _TURN.split(text)
    speakers = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": speakers[name], "content": said.strip()} for name, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def sides(document: Row) -> Iterator[tuple[Any, Row]]:
    """Yield the two sides of a preference, each with its verdict (its own score, where there is one) and its name."""
    for name in _SIDES:
        score = number(document.get(f"score_{name}"))
        judgement = judged(float(name == "chosen") if score is None else score, name == "chosen")
        yield document.get(name), judgement | {"metadata": fields(document.get("metadata")) | {PREFERENCE: name}}


def labelled(document: Row, rollout: Row) -> Row:
    """Return the rollout of a row with what its label says, as KTO has it: whether the answer is wanted.

    One that is not is as the rejected side of a preference.
    """
    wanted = kto_label(document)
    if wanted is None:
        return rollout
    rejected = {} if wanted else {"metadata": fields(rollout.get("metadata")) | {PREFERENCE: REJECTED}}
    return rollout | judged(None, wanted) | rejected


def kto_label(document: Mapping[str, Any]) -> bool | None:
    """Return the label of a row for KTO (LLaMA-Factory's name is `kto_tag`); None for a row that has none.

    Beside messages, 0 and 1 may be classes.
    """
    values = [document.get(name) for name in ("label", "kto_tag")]
    label = next((value for value in values if value is not None), None)
    if isinstance(label, bool):
        return label
    return boolean(label) if _has(document, "prompt", "completion") else None


def _has(document: Mapping[str, Any], *names: str) -> bool:
    return all(document.get(name) is not None for name in names)


def _chat_or_text(prompt: Any) -> Any:
    """Return a prompt in one form: text is what a user says."""
    return chat(prompt) or [{"role": "user", "content": prompt}]


def _prompt(prompt: Any) -> Chat:
    return [] if prompt is None else _chat_or_text(prompt)
