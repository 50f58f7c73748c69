"""Trajectories as documents of the Agent Trajectory Interchange Format (ATIF), which Harbor and NeMo read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import msgspec
import orjson

from rollmill.corpus.message import Message
from rollmill.corpus.record import Record

VERSION = "ATIF-v1.6"
"""The first version in which contents may have images."""
_SOURCES = {"system": "system", "developer": "system", "user": "user", "assistant": "agent"}
_KEPT = ("instance_id", "sample_id", "reward", "success", "speedup")
_Json = dict[str, Any]
_metadata_text = msgspec.json.Decoder(Any)


def atif_document(facts: Mapping[str, Any], record: Record, origin: Mapping[str, Any]) -> _Json:
    """Return a rollout as one document; the verdict, for which the format has no place, stands in `extra`.

    A result of a tool is observed by the step that called it; arguments that are no object stand under `text`.
    """
    steps = _Steps()
    for turn in record.conversation() or []:
        steps.take(turn)
    about = {name: facts[name] for name in _KEPT} | {"exit_status": _text(record.exit_status)}
    if len(options := record.request_field("chat_template_kwargs")):
        about["chat_template_kwargs"] = msgspec.json.decode(options)
    agent: _Json = {"name": "rollmill", "version": version("rollmill"), "model_name": _model(record, origin)}
    if len(tools := record.request_field("tools")):
        agent["tool_definitions"] = msgspec.json.decode(tools)
    return {
        "schema_version": VERSION,
        "session_id": f"{facts['instance_id']}-{facts['sample_id']}",
        "agent": _known(agent),
        "steps": steps.done,
        "final_metrics": _known({**_tokens(record), "total_steps": len(steps.done)}),
        "extra": _known(about),
    }


class _Steps:
    """Makes steps of messages in the one form, in their order."""

    def __init__(self) -> None:
        self.done: list[_Json] = []
        self._agent: _Json | None = None
        """The last step of the agent, whose calls results belong to."""
        self._open: list[str] = []

    def take(self, turn: Message) -> None:
        """Take one message; what ends an agent's run (`exit`) is none."""
        if turn.role == "tool":
            self._observe(turn)
        elif turn.role == "assistant":
            self._answer(turn)
        elif turn.role in _SOURCES:
            self._add(_SOURCES[turn.role], _content(turn))

    def _add(self, source: str, message: Any) -> _Json:
        step: _Json = {"step_id": len(self.done) + 1, "source": source, "message": message}
        self.done.append(step)
        return step

    def _answer(self, turn: Message) -> None:
        step = self._add("agent", _content(turn))
        calls = msgspec.json.decode(turn.tool_calls) if len(turn.tool_calls) else []
        made = [_call(call, f"call-{step['step_id']}-{number}") for number, call in enumerate(calls, start=1)]
        if len(turn.reasoning_content):
            step["reasoning_content"] = msgspec.json.decode(turn.reasoning_content)
        if made:
            step["tool_calls"] = made
        if len(turn.weight):
            step["extra"] = {"weight": 0}
        self._agent, self._open = step, [call["tool_call_id"] for call in made]

    def _observe(self, turn: Message) -> None:
        """Add a result to the step that called for it; one that nothing called for is what a user says."""
        named = msgspec.json.decode(turn.tool_call_id) if len(turn.tool_call_id) else None
        identity = str(named) if named is not None else next(iter(self._open), None)
        if self._agent is None or identity not in self._open:
            self._add("user", _content(turn))
            return
        self._open.remove(identity)
        observation = self._agent.setdefault("observation", {"results": []})
        observation["results"].append({"source_call_id": identity, "content": _content(turn)})


def _call(call: Any, made_id: str) -> _Json:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _opened(arguments)
    if not isinstance(arguments, dict):
        arguments = {} if arguments is None else {"text": arguments}
    return {
        "tool_call_id": str(call.get("id") or made_id),
        "function_name": str(function.get("name") or ""),
        "arguments": arguments,
    }


def _opened(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text or None


def _content(turn: Message) -> Any:
    """Return text, or parts where there are images; parts of any other kind as JSON text."""
    content = msgspec.json.decode(turn.content) if len(turn.content) else None
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    parts = [_part(part) for part in content]
    if any(part["type"] == "image" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _part(part: Any) -> _Json:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.get("type") == "image" and isinstance(part.get("image"), str):
        path = part["image"]
        kind = path[5:].partition(";")[0] if path.startswith("data:") else f"image/{path.rpartition('.')[2].lower()}"
        return {"type": "image", "source": {"media_type": kind.replace("/jpg", "/jpeg"), "path": path}}
    text = part.get("text")
    return {"type": "text", "text": text if isinstance(text, str) else msgspec.json.encode(part).decode()}


def _tokens(record: Record) -> _Json:
    usage = record.usage if isinstance(record.usage, dict) else {}
    return {
        f"total_{name}": usage[name] for name in ("prompt_tokens", "completion_tokens") if type(usage.get(name)) is int
    }


def _model(record: Record, origin: Mapping[str, Any]) -> str | None:
    recorded = record.metadata_fields().get("model")
    return _text(origin.get("model")) or _text(None if recorded is None else _metadata_text.decode(recorded))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _known(values: _Json) -> _Json:
    return {key: value for key, value in values.items() if value is not None}
