"""A recorded conversation as training can use it: no bookkeeping, turns that alternate, an assistant turn last."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from rollmill.corpus.message import Message
from rollmill.corpus.raw_json import is_absent
from rollmill.corpus.tool_calls import has_nameless_call
from rollmill.exports.contents import is_bare, is_blank, is_readable, is_string, join_contents, tidy

Refusal = Literal[
    "no_messages",
    "unknown_role",
    "unreadable_content",
    "unreadable_call",
    "no_assistant_turn",
    "empty_completion",
    "marked_not_for_training",
]
"""Why a conversation teaches nothing."""

_EXIT = "exit"
_MERGED = frozenset({"system", "developer", "user", "assistant"})
_KNOWN = _MERGED | {"tool", "function"}


class Parted(NamedTuple):
    """A conversation in two: what stands before the first assistant turn that is learnt, and the rest."""

    prompt: list[Message]
    completion: list[Message]


class CleanConversation(NamedTuple):
    """A conversation to train on, and which of the recorded answers it has."""

    turns: list[Message]
    answers: tuple[int, ...] | None
    """From the end: -1 is the last recorded one. None where two were joined."""
    all_answers: bool
    """Whether it has every recorded answer."""


def clean(messages: list[Message] | None) -> list[Message] | Refusal:
    """Return the conversation to train on, or why there is none; see `clean_conversation`."""
    found = clean_conversation(messages)
    return found.turns if isinstance(found, CleanConversation) else found


def clean_conversation(messages: list[Message] | None) -> CleanConversation | Refusal:
    """Return the conversation to train on, or why there is none. What is given is not changed.

    Left out: `exit` messages, assistant turns of white space without tool calls (and without reasoning), whatever
    follows the last assistant turn. Consecutive turns of one role become one: strings with a blank line between them,
    else all their parts. Turns that call or are tools, carry reasoning, or have another name stay on their own. A
    leading assistant turn stays. Turns that are marked as not to be learnt keep their weight of 0; at the end they are
    left out.

    Refused, first reason first: `no_messages` (none but `exit`), `unknown_role`, `unreadable_content` (a content that
    is no string, list of parts or null), `unreadable_call` (one without a name, or of a kind that has no place in
    OpenAI's form, such as those that a server answers itself), `no_assistant_turn`, `empty_completion` (the model
    wrote white space only), `marked_not_for_training` (no assistant turn is to be learnt).
    """
    if messages and (end := _clean_end(messages)):
        turns = messages if end == len(messages) else messages[:end]
        count = sum(turn.role == "assistant" for turn in turns)
        return CleanConversation(turns, tuple(range(-count, 0)), all_answers=True)
    turns = [tidy(turn) for turn in messages or () if turn.role != _EXIT]
    if refusal := _refusal(turns):
        return refusal
    recorded = [id(turn) for turn in turns if turn.role == "assistant"]
    turns = [
        turn for turn in turns if turn.role != "assistant" or _has_answer(turn) or not is_blank(turn.reasoning_content)
    ]
    end = len(turns)
    while end and not is_learnt(turns[end - 1]):
        end -= 1
    if not end:
        return "marked_not_for_training"
    kept = turns[:end]
    places = {turn: place for place, turn in enumerate(recorded, start=-len(recorded))}
    answers = tuple(places[id(turn)] for turn in kept if turn.role == "assistant")
    merged = _merge(kept)
    joined = sum(turn.role == "assistant" for turn in merged) < len(answers)
    return CleanConversation(merged, None if joined else answers, len(answers) == len(recorded))


def _clean_end(messages: list[Message]) -> int:
    """Return how many messages are a clean conversation as they are: texts of roles that alternate, as in most.

    All but what follows the last assistant turn; 0 where they need to be looked into.
    """
    before, end = "", 0
    for number, turn in enumerate(messages, start=1):
        role = turn.role
        if role == before or role not in _MERGED or not is_string(turn.content) or not is_bare(turn):
            return 0
        if role == "assistant":
            if is_blank(turn.content):
                return 0
            end = number
        before = role
    return end


def is_learnt(turn: Message) -> bool:
    """Return whether a message is the model's, and not marked."""
    return turn.role == "assistant" and not len(turn.weight)


def part(turns: list[Message]) -> Parted:
    """Return a clean conversation as prompt and completion; the prompt is empty where the assistant speaks first."""
    first = next(number for number, turn in enumerate(turns) if is_learnt(turn))
    return Parted(turns[:first], turns[first:])


def _refusal(turns: list[Message]) -> Refusal | None:
    if not turns:
        return "no_messages"
    if not {turn.role for turn in turns} <= _KNOWN:
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
    """Return whether an assistant turn says or does something; reasoning alone does not count."""
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
        and turn.role in _MERGED
        and before.name == turn.name
        and _is_content_only(before)
        and _is_content_only(turn)
    )


def _is_content_only(turn: Message) -> bool:
    """Return whether a turn is content only, whatever the speaker's name."""
    extras = turn.tool_calls, turn.tool_call_id, turn.reasoning_content, turn.weight, turn.stop_text
    return not any(map(len, extras))


def _merged_message(run: list[Message]) -> Message:
    return msgspec.structs.replace(run[0], content=join_contents([turn.content for turn in run]))
