"""Trajectory: what is shown of one record, in the order it is read, as text that is safe to show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import orjson

from rollmill.corpus.json_repair import repair
from rollmill.corpus.message import Message
from rollmill.corpus.record import decode_record
from rollmill.reports.viewing.blocks import Block, json_text, message_blocks
from rollmill.terminal.escapes import visible

State = Literal["success", "unsuccessful", "unjudged", "failed"]

DENIED = "Claimed success, but its evaluation failed."
NO_MESSAGES = "No messages were recorded."

_CHAT_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
_FIRST = ("success", "status", "phase", "reason", "error", "answer", "reward", "speedup")
_UNTOLD = frozenset({"instance_id", "container_id", "raw", "json"})
_LONG = 300


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """One message."""

    role: str
    name: str
    blocks: list[Block]

    @property
    def bookkeeping(self) -> bool:
        """Whether an agent wrote it for itself (such as `exit`), and no model read or wrote it."""
        return self.role not in _CHAT_ROLES


@dataclass(frozen=True, slots=True)
class Findings:
    """What a judge said: short facts, and what its programs printed."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    outputs: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.facts or self.outputs)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One record; empty where there is nothing."""

    turns: list[ShownMessage] = field(default_factory=list)
    problem_statement: str = ""
    git_diff: str = ""
    evaluation: Findings = field(default_factory=Findings)
    verdict: Findings = field(default_factory=Findings)
    error: str = ""
    unreadable: str = ""
    """Why the record could not be read as one, for people."""


def read_trajectory(record: bytes) -> Trajectory:
    """Return the parts of a record's JSON object.

    Never raises for what stands in it: what cannot be read is said so.
    """
    line = repair(record) or record
    try:
        raw = _parsed(line)
    except (ValueError, RecursionError) as error:
        return Trajectory(unreadable=visible(f"The record is not valid JSON: {error}"))
    if not isinstance(raw, dict):
        return Trajectory(unreadable=f"The record is not a JSON object but a {type(raw).__name__}.")
    unreadable = ""
    try:
        turns = [_turn(message) for message in decode_record(line).conversation() or []]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        turns = list(_unusual_turns(raw))
        unreadable = visible(f"The record is not of the usual shape: {error}")
    return Trajectory(
        turns=turns,
        problem_statement=_text(raw.get("problem_statement")),
        git_diff=_text(raw.get("git_diff")).strip("\n"),
        evaluation=_evaluation(raw.get("evaluation_info")),
        verdict=_findings([raw.get("verdict")]),
        error=_error(raw.get("error")),
        unreadable=unreadable,
    )


def state(facts: dict[str, Any]) -> State:
    """Return how the rollout of a table row ended. `failed`: something outside broke. `unjudged`: nobody said."""
    if facts.get("status") == "failed":
        return "failed"
    success = facts.get("success")
    return "unjudged" if success is None else "success" if success else "unsuccessful"


def is_denied(facts: dict[str, Any]) -> bool:
    """Return whether the record claims a success that its own evaluation denies."""
    return facts.get("claimed_success") is True and facts.get("success") is False


def _parsed(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)  # takes lone surrogates, which Python's own writer makes


def _turn(message: Message) -> ShownMessage:
    content, calls, reasoning, name = (
        msgspec.json.decode(value) if bytes(value) else None
        for value in (message.content, message.tool_calls, message.reasoning_content, message.name)
    )
    return ShownMessage(visible(message.role), _text(name), message_blocks(message.role, content, calls, reasoning))


def _unusual_turns(raw: dict[str, Any]) -> Iterator[ShownMessage]:
    """Yield messages of a record that the usual reader refuses: each as far as it can be read, else as JSON."""
    messages = next((raw[key] for key in ("messages", "trajectory", "prompt") if raw.get(key)), None)
    for message in messages if isinstance(messages, list) else [messages] if messages else []:
        role = message.get("role") if isinstance(message, dict) else None
        if isinstance(role, str):
            blocks = message_blocks(role, *(message.get(key) for key in ("content", "tool_calls", "reasoning_content")))
            yield ShownMessage(visible(role), "", blocks)
        else:
            yield ShownMessage("no role", "", [Block("output", json_text(message))])
    if raw.get("completion"):
        yield ShownMessage("assistant", "", message_blocks("assistant", raw["completion"]))


def _evaluation(info: Any) -> Findings:
    """Return the evaluation service's own answer first, then what the agent noted of it; each name once."""
    if not isinstance(info, dict):
        return _findings([info])
    response = info.get("response")
    answer = response.get("json") if isinstance(response, dict) else None
    if isinstance(answer, dict):
        return _findings([answer, info.get("meta")])
    notes = {key: value for key, value in info.items() if key not in {"request", "response", "meta", "extracted"}}
    return _findings([notes, response, info.get("meta"), info.get("extracted")])


def _findings(parts: list[Any]) -> Findings:
    findings: dict[str, str] = {}
    for part in parts:
        if isinstance(part, dict):
            for key, value in part.items():
                if value not in (None, "", [], {}) and key not in _UNTOLD and not key.endswith("_path"):
                    findings.setdefault(visible(key), json_text(value))
        elif part is not None:
            findings.setdefault("message", json_text(part))
    names = sorted(findings, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    long = {name for name in names if "\n" in findings[name] or len(findings[name]) > _LONG}
    return Findings(
        facts=[(name, findings[name]) for name in names if name not in long],
        outputs=[(name, findings[name].strip("\n")) for name in names if name in long],
    )


def _error(value: Any) -> str:
    match value:
        case {"type": str(kind), "message": str(message)}:
            return visible(f"{kind}: {message}")
        case _:
            return _text(value)


def _text(value: Any) -> str:
    return "" if value in (None, "", [], {}, False) else json_text(value)
