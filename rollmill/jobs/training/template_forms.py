"""Messages in the forms that chat templates take: key of the thoughts, arguments as text or object, ids of calls."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from rollmill.jobs.training.rows import REASONING, Chat, TrainingRow
from rollmill.jobs.training.tool_calls import CallArguments

_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
"""The ids of calls that Mistral's templates insist on."""
_LETTERS = string.ascii_letters + string.digits


class MessageForm(NamedTuple):
    """One way of writing the same messages for a template."""

    reasoning: str = REASONING
    """The key of the thoughts."""
    null_content: bool = False
    """An empty content beside tool calls is null, not an empty text."""
    text_arguments: bool = False
    """Arguments of calls are JSON text, not objects."""
    short_ids: bool = False
    """Ids of calls have nine letters and digits."""
    parts: bool = False
    """Contents are lists of parts."""


def message_forms(row: TrainingRow, reasoning_names: tuple[str, ...]) -> Iterator[MessageForm]:
    """Yield the forms that differ for this row, the usual one first.

    `reasoning_names` are the keys from which the template may read thoughts.
    """
    calls = [message for message in row.messages if message.get("tool_calls")]
    thinks = any(REASONING in message for message in row.messages)
    has_silent_calls = any(not message["content"] for message in calls)
    has_long_ids = any(
        not _SHORT_ID.fullmatch(str(call.get("id")))
        for message in calls
        for call in message["tool_calls"]
        if isinstance(call, dict)
    )
    for short_ids, text_arguments, null_content, name in product(
        (False, True) if has_long_ids else (False,),
        (False, True) if calls else (False,),
        (False, True) if has_silent_calls else (False,),
        reasoning_names if thinks else (REASONING,),
    ):
        yield MessageForm(name, null_content, text_arguments, short_ids)
    yield MessageForm(reasoning_names[0], parts=True)


def write_messages(messages: Chat, form: MessageForm) -> Chat:
    """Return messages in a form."""
    ids: dict[str, str] = {}
    return [_write_message(message, form, ids) for message in messages]


def write_content(text: str, form: MessageForm, *, calls: bool) -> Any:
    """Return a content in a form; `calls` tells whether its message has tool calls."""
    if form.parts:
        return [{"type": "text", "text": text}]
    return None if form.null_content and calls and not text else text


def call_function(call: Any) -> dict[str, Any]:
    """Return the `function` of a tool call; an empty object where it has none."""
    function = call.get("function") if isinstance(call, dict) else None
    return function if isinstance(function, dict) else {}


def _write_message(message: dict[str, Any], form: MessageForm, ids: dict[str, str]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    written = {**message, "content": write_content(message["content"], form, calls=bool(calls))}
    if REASONING in written:
        written[form.reasoning] = written.pop(REASONING)
    if calls:
        written["tool_calls"] = [_write_call(call, form, ids) for call in calls]
    if form.short_ids and "tool_call_id" in written:
        written["tool_call_id"] = _short_id(written["tool_call_id"], ids)
    return written


def _write_call(call: Any, form: MessageForm, ids: dict[str, str]) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    call = {"type": "function", **call}
    if form.short_ids:
        call["id"] = _short_id(call.get("id", f"call {len(ids)}"), ids)
    arguments = function["arguments"]
    if not form.text_arguments or isinstance(arguments, str):
        return {**call, "function": function}
    # The text of the row where there is one: encoding the object again may change blanks and escapes.
    text = arguments.text if isinstance(arguments, CallArguments) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _short_id(identity: Any, ids: dict[str, str]) -> str:
    """Return an id of nine letters and digits, the same for a call and its result: `ids` remembers them."""
    name = str(identity)
    if _SHORT_ID.fullmatch(name):
        return name
    # "call", then the number of the id in base 62, five digits.
    digits = (_LETTERS[len(ids) // 62**power % 62] for power in range(4, -1, -1))
    return ids.setdefault(name, "call" + "".join(digits))
