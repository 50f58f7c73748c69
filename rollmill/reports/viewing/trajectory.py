"""The displayed parts of a record, in reading order, as text without control characters."""

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
_FIRST_KEYS = ("success", "status", "phase", "reason", "error", "answer", "reward", "speedup", "flags")
_HIDDEN_KEYS = frozenset({"instance_id", "container_id", "raw", "json"})
_LONG_VALUE = 300


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """One message of a trajectory."""

    role: str
    name: str
    blocks: list[Block]

    @property
    def bookkeeping(self) -> bool:
        """Return whether an agent wrote it for itself (such as `exit`): no model read or wrote it."""
        return self.role not in _CHAT_ROLES


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of an evaluation or verdict: short facts, and the outputs of its programs."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    outputs: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.facts or self.outputs)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The parts of one record; empty where the record has none."""

    turns: list[ShownMessage] = field(default_factory=list)
    problem_statement: str = ""
    git_diff: str = ""
    evaluation: Findings = field(default_factory=Findings)
    verdict: Findings = field(default_factory=Findings)
    error: str = ""
    unreadable: str = ""
    """The reason that the record could not be read, for the reader."""


def read_trajectory(record: bytes) -> Trajectory:
    """Return the parts of a record's JSON object.

    No record raises: the reason that it cannot be read is in `unreadable`.
    """
    line = repair(record) or record
    try:
        raw = _parse(line)
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
    """Return the outcome of a rollout from its row of the table.

    `failed`: something outside of the model failed. `unjudged`: no success was recorded.
    """
    if facts.get("status") == "failed":
        return "failed"
    success = facts.get("success")
    if success is None:
        return "unjudged"
    return "success" if success else "unsuccessful"


def is_denied(facts: dict[str, Any]) -> bool:
    """Return whether the record claims a success that its own evaluation denies."""
    return facts.get("claimed_success") is True and facts.get("success") is False


def _parse(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)  # accepts lone surrogates, which Python's own writer emits


def _turn(message: Message) -> ShownMessage:
    content, calls, reasoning, name = (
        msgspec.json.decode(value) if bytes(value) else None
        for value in (message.content, message.tool_calls, message.reasoning_content, message.name)
    )
    return ShownMessage(visible(message.role), _text(name), message_blocks(message.role, content, calls, reasoning))


def _unusual_turns(raw: dict[str, Any]) -> Iterator[ShownMessage]:
    """Yield the messages of a record that `decode_record` refuses: read as far as possible, else as JSON."""
    messages = next((raw[key] for key in ("messages", "trajectory", "prompt") if raw.get(key)), None)
    if not isinstance(messages, list):
        messages = [messages] if messages else []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        if isinstance(role, str):
            blocks = message_blocks(role, *(message.get(key) for key in ("content", "tool_calls", "reasoning_content")))
            yield ShownMessage(visible(role), "", blocks)
        else:
            yield ShownMessage("no role", "", [Block("output", json_text(message))])
    if raw.get("completion"):
        yield ShownMessage("assistant", "", message_blocks("assistant", raw["completion"]))


def _evaluation(info: Any) -> Findings:
    """Return the evaluation service's answer first, then the agent's notes on it; each name once."""
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
                if value not in (None, "", [], {}) and key not in _HIDDEN_KEYS and not key.endswith("_path"):
                    findings.setdefault(visible(key), json_text(value))
        elif part is not None:
            findings.setdefault("message", json_text(part))
    names = sorted(findings, key=lambda name: _FIRST_KEYS.index(name) if name in _FIRST_KEYS else len(_FIRST_KEYS))
    long = {name for name in names if "\n" in findings[name] or len(findings[name]) > _LONG_VALUE}
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
