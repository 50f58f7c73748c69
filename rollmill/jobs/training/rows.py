"""Training rows: conversations, as `messages` or as TRL's `prompt` and `completion`, ready for a chat template."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from rollmill.files.rows import BadRow, Row, read_json_lines

Chat = list[dict[str, Any]]
ASSISTANT = "assistant"


class TrainingRow(NamedTuple):
    """A conversation to learn from."""

    messages: Chat
    """As templates expect them: content is text, the arguments of tool calls are objects, nothing is null."""
    first: int
    """Assistant turns from this message on are learnt: all of `messages`, those of a `completion`."""
    tools: list[Any] | None
    options: dict[str, Any]
    """What else the chat template is given (`chat_template_kwargs`)."""
    problem: str
    """`metadata.instance_id`; where there is none, what stands before the first assistant turn."""


class _UnusableError(Exception):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


def read_training_rows(path: str) -> Iterator[tuple[int, TrainingRow | BadRow]]:
    """Yields (line number, row) of a JSON Lines file, local or remote, plain or compressed.

    Raises `InputError` where the file cannot be read.
    """
    for number, row in read_json_lines(path):
        yield number, row if isinstance(row, BadRow) else training_row(number, row)


def training_row(number: int, row: Row) -> TrainingRow | BadRow:
    """The conversation of one JSON object, or why it teaches nothing."""
    try:
        return _training_row(row)
    except _UnusableError as error:
        return BadRow(number, error.field, error.reason, orjson.dumps(row).decode()[:2000])


def is_training_row(row: Row | BadRow) -> bool:
    """Whether a row is of a kind that trains, by its keys."""
    return isinstance(row, dict) and ("messages" in row or ("prompt" in row and "completion" in row))


def _training_row(row: Row) -> TrainingRow:
    if row.get("messages") is not None:
        messages, first = _chat(row, "messages", "user"), 0
    elif row.get("prompt") is not None and row.get("completion") is not None:
        prompt = _chat(row, "prompt", "user")
        messages, first = prompt + _chat(row, "completion", ASSISTANT), len(prompt)
    else:
        raise _UnusableError("messages", "neither messages, nor prompt and completion")
    learnt = [message for message in messages[first:] if message["role"] == ASSISTANT]
    if not learnt:
        raise _UnusableError("messages", "no assistant turn to learn")
    if not any(message["content"].strip() or message.get("tool_calls") for message in learnt):
        raise _UnusableError("messages", "the assistant's turns are empty")
    options = row.get("chat_template_kwargs") or {}
    if not isinstance(options, dict):
        raise _UnusableError("chat_template_kwargs", "not an object")
    return TrainingRow(messages, first, _tools(row.get("tools")), options, _problem(row, messages))


def _chat(row: Row, field: str, role: str) -> Chat:
    value = row[field]
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise _UnusableError(field, "not a list of messages")
    return [_message(field, message) for message in value]


def _message(field: str, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise _UnusableError(field, "a message without a role")
    kept = {key: value for key, value in message.items() if value is not None}
    kept["content"] = _text(field, message.get("content"))
    if isinstance(calls := kept.get("tool_calls"), list):
        kept["tool_calls"] = [_call(call) for call in calls]
    return kept


def _text(field: str, content: Any) -> str:
    """A content as text; parts of text become lines, as `rollmill.exports.token_counter` counts them."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise _UnusableError(field, "a content that is neither text nor a list of parts")
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise _UnusableError(field, "a content with parts that are not text (images are not trained on)")
    return "\n".join(texts)


def _call(call: Any) -> Any:
    """A tool call with its arguments as an object, which is how servers hand them to templates."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    function = {key: value for key, value in function.items() if value is not None}
    if isinstance(function.get("arguments"), str):
        with suppress(orjson.JSONDecodeError):  # the model wrote no JSON: as text it stays what it was
            function["arguments"] = orjson.loads(function["arguments"])
    return {**{key: value for key, value in call.items() if value is not None}, "function": function}


def _tools(tools: Any) -> list[Any] | None:
    if isinstance(tools, str):
        try:
            tools = orjson.loads(tools)
        except orjson.JSONDecodeError as error:
            raise _UnusableError("tools", f"not valid JSON: {error}") from error
    if tools is not None and not isinstance(tools, list):
        raise _UnusableError("tools", "not a list")
    return tools or None


def _problem(row: Row, messages: Chat) -> str:
    metadata = row.get("metadata")
    named = metadata.get("instance_id") if isinstance(metadata, dict) else None
    if named is not None:
        return str(named)
    begin = next(number for number, message in enumerate(messages) if message["role"] == ASSISTANT)
    return orjson.dumps([[message["role"], message["content"]] for message in messages[:begin]]).decode()
