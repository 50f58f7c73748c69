"""Items of OpenAI's Responses API, which make up one answer together, joined into messages."""

from __future__ import annotations

from rollmill.corpus.message import Message, ResponsesItem
from rollmill.corpus.raw_json import NOTHING, encode
from rollmill.corpus.tool_calls import calls_as_json


def join_items(turns: list[Message]) -> list[Message]:
    """Return messages with the items of one answer joined: reasoning with what follows, calls with what precedes."""
    joined: list[Message] = []
    for turn in turns:
        previous = joined[-1] if joined else None
        if previous is not None and _are_one_answer(previous, turn):
            calls = [*calls_as_json(previous), *calls_as_json(turn)]
            is_item = isinstance(previous, ResponsesItem) and isinstance(turn, ResponsesItem)
            joined[-1] = (ResponsesItem if is_item else Message)(
                "assistant",
                previous.content if isinstance(turn, ResponsesItem) else turn.content,
                encode(calls) if calls else NOTHING,
                name=turn.name or previous.name,
                reasoning_content=previous.reasoning_content,
                weight=turn.weight or previous.weight,
                stop_text=turn.stop_text or previous.stop_text,
            )
        else:
            joined.append(turn)
    return joined


def _are_one_answer(previous: Message, turn: Message) -> bool:
    """Return whether a turn continues the answer that the turn before it began; reasoning always begins one."""
    if previous.role != "assistant" or turn.role != "assistant" or len(turn.reasoning_content):
        return False
    # A full message continues an answer only after reasoning: after calls it is the next answer.
    return isinstance(turn, ResponsesItem) or (isinstance(previous, ResponsesItem) and not len(previous.tool_calls))
