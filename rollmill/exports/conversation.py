"""A recorded conversation as training can use it: no bookkeeping, turns that alternate, an assistant turn last."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from rollmill.corpus.record import Message
from rollmill.exports.contents import is_absent, is_blank, is_readable, join_contents, tidy

Refusal = Literal["no_messages", "unknown_role", "unreadable_content", "no_assistant_turn", "empty_completion"]
"""Why a conversation teaches nothing."""

_EXIT = "exit"
_MERGED = frozenset({"system", "developer", "user", "assistant"})
_KNOWN = _MERGED | {"tool", "function"}


class Parted(NamedTuple):
    """A conversation in two: what stands before the first assistant turn, and the rest."""

    prompt: list[Message]
    completion: list[Message]


def clean(messages: list[Message] | None) -> list[Message] | Refusal:
    """The conversation to train on, or why there is none. What is given is not changed.

    Left out: `exit` messages, assistant turns of white space without tool calls (and without reasoning), whatever
    follows the last assistant turn. Consecutive turns of one role become one: strings with a blank line between them,
    else all their parts. Turns that call or are tools, carry reasoning, or have another name stay on their own. A
    leading assistant turn stays.

    Refused, first reason first: `no_messages` (none but `exit`), `unknown_role`, `unreadable_content` (a content that
    is no string, list of parts or null), `no_assistant_turn`, `empty_completion` (the model wrote white space only).
    """
    turns = [tidy(turn) for turn in messages or () if turn.role != _EXIT]
    if refusal := _refusal(turns):
        return refusal
    turns = [
        turn for turn in turns if turn.role != "assistant" or _answers(turn) or not is_blank(turn.reasoning_content)
    ]
    end = max(number for number, turn in enumerate(turns, start=1) if turn.role == "assistant")
    return _merge(turns[:end])


def part(turns: list[Message]) -> Parted:
    """A clean conversation as prompt and completion; the prompt is empty where the assistant speaks first."""
    first = next(number for number, turn in enumerate(turns) if turn.role == "assistant")
    return Parted(turns[:first], turns[first:])


def _refusal(turns: list[Message]) -> Refusal | None:
    if not turns:
        return "no_messages"
    if not {turn.role for turn in turns} <= _KNOWN:
        return "unknown_role"
    if not all(is_readable(turn.content) for turn in turns):
        return "unreadable_content"
    written = [turn for turn in turns if turn.role == "assistant"]
    if not written:
        return "no_assistant_turn"
    return None if any(map(_answers, written)) else "empty_completion"


def _answers(turn: Message) -> bool:
    """Whether an assistant turn says or does something; reasoning alone does not count."""
    return not is_absent(turn.tool_calls) or not is_blank(turn.content)


def _merge(turns: list[Message]) -> list[Message]:
    runs: list[list[Message]] = []
    for turn in turns:
        if runs and _belongs(runs[-1][-1], turn):
            runs[-1].append(turn)
        else:
            runs.append([turn])
    return [_joined(run) if len(run) > 1 else run[0] for run in runs]


def _belongs(before: Message, turn: Message) -> bool:
    return (
        before.role == turn.role
        and turn.role in _MERGED
        and before.name == turn.name
        and _talks(before)
        and _talks(turn)
    )


def _talks(turn: Message) -> bool:
    """Whether a turn is content only, whatever the speaker's name."""
    return not (len(turn.tool_calls) or len(turn.tool_call_id) or len(turn.reasoning_content))


def _joined(run: list[Message]) -> Message:
    return msgspec.structs.replace(run[0], content=join_contents([turn.content for turn in run]))
