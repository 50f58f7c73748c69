"""Export of trajectories as documents of the Agent Trajectory Interchange Format (ATIF), which Harbor and NeMo read."""

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
_VERDICT_FIELDS = ("instance_id", "sample_id", "reward", "success", "speedup")
_Json = dict[str, Any]
_metadata_text = msgspec.json.Decoder(Any)


def atif_document(facts: Mapping[str, Any], record: Record, origin: Mapping[str, Any]) -> _Json:
    """Return a rollout as one document; the verdict, for which the format has no field, is in `extra`.

    A tool's result is an observation of the step that called it. Arguments of a call that are no object are under
    `text`.
    """
    steps = _Steps()
    for turn in record.conversation() or []:
        steps.take(turn)
    extra = {name: facts[name] for name in _VERDICT_FIELDS} | {"exit_status": _text(record.exit_status)}
    if len(options := record.request_field("chat_template_kwargs")):
        extra["chat_template_kwargs"] = msgspec.json.decode(options)
    agent: _Json = {"name": "rollmill", "version": version("rollmill"), "model_name": _model(record, origin)}
    if len(tools := record.request_field("tools")):
        agent["tool_definitions"] = msgspec.json.decode(tools)
    return {
        "schema_version": VERSION,
        "session_id": f"{facts['instance_id']}-{facts['sample_id']}",
        "agent": _known(agent),
        "steps": steps.done,
        "final_metrics": _known({**_tokens(record), "total_steps": len(steps.done)}),
        "extra": _known(extra),
    }


class _Steps:
    """Converts normalized messages to steps, in their order."""

    def __init__(self) -> None:
        self.done: list[_Json] = []
        self._agent: _Json | None = None
        """The last step of the agent, which later results belong to."""
        self._pending_ids: list[str] = []
        """Ids of its calls without a result so far."""

    def take(self, turn: Message) -> None:
        """Convert one message; the message that ends an agent's run (role `exit`) has no step."""
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
        recorded = msgspec.json.decode(turn.tool_calls) if len(turn.tool_calls) else []
        calls = [_call(call, f"call-{step['step_id']}-{number}") for number, call in enumerate(recorded, start=1)]
        if len(turn.reasoning_content):
            step["reasoning_content"] = msgspec.json.decode(turn.reasoning_content)
        if calls:
            step["tool_calls"] = calls
        if len(turn.weight):
            step["extra"] = {"weight": 0}
        self._agent, self._pending_ids = step, [call["tool_call_id"] for call in calls]

    def _observe(self, turn: Message) -> None:
        """Add a result to the step that called for it; one that no call asked for becomes a user's message."""
        recorded_id = msgspec.json.decode(turn.tool_call_id) if len(turn.tool_call_id) else None
        call_id = str(recorded_id) if recorded_id is not None else next(iter(self._pending_ids), None)
        if self._agent is None or call_id not in self._pending_ids:
            self._add("user", _content(turn))
            return
        self._pending_ids.remove(call_id)
        observation = self._agent.setdefault("observation", {"results": []})
        observation["results"].append({"source_call_id": call_id, "content": _content(turn)})


def _call(call: Any, generated_id: str) -> _Json:
    """Return a call as ATIF has it."""
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _parse_arguments(arguments)
    if not isinstance(arguments, dict):
        arguments = {} if arguments is None else {"text": arguments}
    return {
        "tool_call_id": str(call.get("id") or generated_id),
        "function_name": str(function.get("name") or ""),
        "arguments": arguments,
    }


def _parse_arguments(text: str) -> Any:
    """Return arguments that are JSON text as values; other text unchanged, None for an empty one."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text or None


def _content(turn: Message) -> Any:
    """Return text; a list of parts where there are images, with parts of any other kind as JSON text."""
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
