"""Roles of messages: which turns are the model's, LangChain's types in place of roles, items of OpenAI's Responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec

from rollmill.corpus.message import PlainMessage, RecordedMessage, ScannedMessage
from rollmill.corpus.raw_json import NOTHING, decode

ROLE_ALIASES = {"function": "tool", "model": "assistant", "human": "user", "ai": "assistant"}
"""Other names of roles, and the normalized ones."""
MODEL_ROLES = frozenset({"assistant", *(name for name, role in ROLE_ALIASES.items() if role == "assistant")})
MODEL_ITEM_TYPES = frozenset({b'"function_call"', b'"reasoning"', b'"custom_tool_call"'})
"""Types, as JSON, of items of Responses that the model writes, besides messages."""
ITEM_TYPES = MODEL_ITEM_TYPES | {b'"function_call_output"', b'"custom_tool_call_output"'}

_LANGCHAIN_TYPE = re.compile(r"(human|ai|system|tool|function|chat)(?:message)?(?:chunk)?", re.IGNORECASE)
"""LangChain's types of messages, and the names of their classes, such as `AIMessageChunk`."""
_ANALYSIS = b'"analysis"'
"""The channel of gpt-oss in which the model thinks."""
_role = attrgetter("role")
_recorded_message = msgspec.json.Decoder(RecordedMessage)


def with_roles(turns: Sequence[PlainMessage]) -> Sequence[PlainMessage]:
    """Return messages with a role each, which LangChain writes as a type, or inside of a nested object."""
    return turns if all(map(_role, turns)) else [turn if turn.role else _with_langchain_role(turn) for turn in turns]


def _with_langchain_role(turn: PlainMessage) -> PlainMessage:
    """Return a message of LangChain with its role; any other message unchanged.

    Read are `{"type": "ai", "content"}`, `{"type": "ai", "data": {"content"}}`, and, as LangChain's own loader does,
    `{"lc": 1, "id": [..., "AIMessage"], "kwargs": {"content"}}`.
    """
    if not isinstance(turn, ScannedMessage) or get_item_type(turn) in ITEM_TYPES:
        return turn
    inner = next((value for value in (turn.kwargs, turn.data) if bytes(memoryview(value)[:1]) == b"{"), None)
    message = turn if inner is None else _recorded_message.decode(inner)
    if not message.role:
        path = decode(turn.id) if inner is not None and len(turn.id) else None
        message.role = find_langchain_role(path, _decoded_type(message), _decoded_type(turn))
    return message


def find_langchain_role(path: Any, *types: Any) -> str:
    """Return the role of a message of LangChain; an empty text for another message.

    Args:
        path: import path of its class as a list, the class name last; None where it is not known.
        types: values of its `type` fields, the innermost first.
    """
    names = [*(path[-1:] if isinstance(path, list) else ()), *types]
    matches = (_LANGCHAIN_TYPE.fullmatch(name) for name in names if isinstance(name, str))
    kind = next((match[1].lower() for match in matches if match), "")
    return ROLE_ALIASES.get(kind, kind)


def _decoded_type(turn: ScannedMessage) -> Any:
    return decode(turn.type) if len(turn.type) else None


def is_model_turn(turn: PlainMessage) -> bool:
    """Return whether the model wrote a message or an item of Responses."""
    return turn.role in MODEL_ROLES or (not turn.role and get_item_type(turn) in MODEL_ITEM_TYPES)


def get_item_type(turn: PlainMessage) -> bytes:
    """Return the `type` of a message as JSON: without a role, the message may be an item of Responses."""
    return bytes(turn.type) if isinstance(turn, ScannedMessage) else b""


def is_analysis(turn: PlainMessage) -> bool:
    """Return whether a message contains the model's reasoning alone, as gpt-oss writes it in a channel."""
    return isinstance(turn, ScannedMessage) and turn.role in MODEL_ROLES and bytes(turn.channel) == _ANALYSIS


def has_analysis(messages: Sequence[PlainMessage]) -> bool:
    """Return whether any message of a record contains reasoning alone."""
    turns = [turn for turn in messages if isinstance(turn, ScannedMessage) and turn.channel is not NOTHING]
    return any(map(is_analysis, turns))
