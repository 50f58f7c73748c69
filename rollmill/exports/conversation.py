"""Recorded conversations as training data: without bookkeeping, roles that alternate, an assistant turn last."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from rollmill.corpus.message import Message
from rollmill.corpus.raw_json import is_absent
from rollmill.corpus.tool_calls import has_nameless_call
from rollmill.exports.contents import drop_empty_fields, is_bare, is_blank, is_readable, is_string, join_contents

DropReason = Literal[
    "no_messages",
    "unknown_role",
    "unreadable_content",
    "unreadable_call",
    "no_assistant_turn",
    "empty_completion",
    "marked_not_for_training",
]
"""The reason for which a conversation cannot be trained on."""

_EXIT = "exit"
_MERGED_ROLES = frozenset({"system", "developer", "user", "assistant"})
_KNOWN_ROLES = _MERGED_ROLES | {"tool", "function"}


class PromptCompletion(NamedTuple):
    """A conversation split before the first assistant turn that is trained on."""

    prompt: list[Message]
    completion: list[Message]


class CleanConversation(NamedTuple):
    """A conversation to train on, and the recorded answers that it has."""

    turns: list[Message]
    answers: tuple[int, ...] | None
    """Indexes of its answers among the recorded ones, from the end: -1 is the last. None where two were joined."""
    all_answers: bool
    """True if it has every recorded answer."""


def clean(messages: list[Message] | None) -> list[Message] | DropReason:
    """Return the conversation to train on, or the reason that there is none; see `clean_conversation`."""
    conversation = clean_conversation(messages)
    return conversation.turns if isinstance(conversation, CleanConversation) else conversation


def clean_conversation(messages: list[Message] | None) -> CleanConversation | DropReason:
    """Return the conversation to train on, or the reason that there is none. The messages are not changed.

    Left out: `exit` messages, assistant turns of white space without tool calls (and without reasoning), and all
    messages after the last assistant turn that is trained on. Consecutive turns of one role become one: strings with a
    blank line between them, else all their parts. Turns with tool calls, tool results, reasoning or another name are
    not joined. A leading assistant turn stays. An assistant turn that is excluded from training keeps its weight of 0.

    Dropped, for the first reason that applies: `no_messages` (none but `exit`), `unknown_role`, `unreadable_content` (a
    content that is no string, list of parts or null), `unreadable_call` (a call without a name, or of a kind that
    OpenAI's form does not have, such as calls that a server answers itself), `no_assistant_turn`, `empty_completion`
    (the model wrote white space only), `marked_not_for_training` (every assistant turn is excluded).
    """
    # Most conversations are clean already, and are not copied.
    if messages and (end := _clean_end(messages)):
        turns = messages if end == len(messages) else messages[:end]
        count = sum(turn.role == "assistant" for turn in turns)
        return CleanConversation(turns, tuple(range(-count, 0)), all_answers=True)
    turns = [drop_empty_fields(turn) for turn in messages or () if turn.role != _EXIT]
    if reason := _drop_reason(turns):
        return reason
    recorded = [id(turn) for turn in turns if turn.role == "assistant"]
    turns = [
        turn for turn in turns if turn.role != "assistant" or _has_answer(turn) or not is_blank(turn.reasoning_content)
    ]
    end = len(turns)
    while end and not is_trained_on(turns[end - 1]):
        end -= 1
    if not end:
        return "marked_not_for_training"
    kept = turns[:end]
    # By identity: two answers may be equal. Token files have the tokens of each answer at its index.
    indexes = {turn: index for index, turn in enumerate(recorded, start=-len(recorded))}
    answers = tuple(indexes[id(turn)] for turn in kept if turn.role == "assistant")
    merged = _merge(kept)
    joined = sum(turn.role == "assistant" for turn in merged) < len(answers)
    return CleanConversation(merged, None if joined else answers, len(answers) == len(recorded))


def _clean_end(messages: list[Message]) -> int:
    """Return the number of messages, up to the last assistant turn, if they are clean as they are.

    That is, texts with roles that alternate. Returns 0 where the messages need `drop_empty_fields`, joins, or checks.
    """
    before, end = "", 0
    for number, turn in enumerate(messages, start=1):
        role = turn.role
        if role == before or role not in _MERGED_ROLES or not is_string(turn.content) or not is_bare(turn):
            return 0
        if role == "assistant":
            if is_blank(turn.content):
                return 0
            end = number
        before = role
    return end


def is_trained_on(turn: Message) -> bool:
    """Return whether a message is the model's, and not excluded from training."""
    return turn.role == "assistant" and not len(turn.weight)


def split_prompt(turns: list[Message]) -> PromptCompletion:
    """Return a clean conversation as prompt and completion; the prompt is empty where the assistant begins."""
    first = next(number for number, turn in enumerate(turns) if is_trained_on(turn))
    return PromptCompletion(turns[:first], turns[first:])


def _drop_reason(turns: list[Message]) -> DropReason | None:
    if not turns:
        return "no_messages"
    if not {turn.role for turn in turns} <= _KNOWN_ROLES:
        return "unknown_role"
    if not all(is_readable(turn.content) for turn in turns):
        return "unreadable_content"
    if any(map(has_nameless_call, turns)):
        return "unreadable_call"
    written = [turn for turn in turns if turn.role == "assistant"]
    if not written:
        return "no_assistant_turn"
    return None if any(map(_has_answer, written)) else "empty_completion"


def _has_answer(turn: Message) -> bool:
    """Return whether an assistant turn has text or calls; reasoning alone does not count."""
    return not is_absent(turn.tool_calls) or not is_blank(turn.content)


def _merge(turns: list[Message]) -> list[Message]:
    runs: list[list[Message]] = []
    for turn in turns:
        if runs and _can_merge(runs[-1][-1], turn):
            runs[-1].append(turn)
        else:
            runs.append([turn])
    return [_merged_message(run) if len(run) > 1 else run[0] for run in runs]


def _can_merge(before: Message, turn: Message) -> bool:
    return (
        before.role == turn.role
        and turn.role in _MERGED_ROLES
        and before.name == turn.name
        and _is_content_only(before)
        and _is_content_only(turn)
    )


def _is_content_only(turn: Message) -> bool:
    """Return whether a turn has content only; it may have a name."""
    extras = turn.tool_calls, turn.tool_call_id, turn.reasoning_content, turn.weight, turn.stop_text
    return not any(map(len, extras))


def _merged_message(run: list[Message]) -> Message:
    return msgspec.structs.replace(run[0], content=join_contents([turn.content for turn in run]))
