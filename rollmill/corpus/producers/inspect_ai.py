"""Logs of inspect_ai: `.eval`, a zip file of samples, and `.json`, a document with all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    as_dict,
    as_dicts,
    as_number,
    as_text,
    as_whole_number,
    exclude_from_training,
    make_failure,
    make_usage,
    make_verdict,
    openai_tools,
)
from rollmill.files.rows import Row

ENTRY = ProducerEntry("inspect_ai", "InspectAi", "logs (.eval, .json)")

_ATTACHMENT = "attachment://"
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_UNUSED_FIELDS = frozenset({"id", "source", "model", "metadata", "function", "error", "internal"})
"""Fields of a message that only inspect_ai itself uses."""
_DEEPEST = 20
"""Levels of a message's contents in which references to attachments are looked for."""


class InspectAi:
    """Reads samples, of a log or each by itself."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a document is a log, or one of its samples."""
        if not isinstance(document, dict):
            return False
        if isinstance(document.get("eval"), dict) and isinstance(document.get("samples"), list):
            return True
        is_sample = {"id", "epoch", "target"} <= document.keys()
        return is_sample and ("messages" in document or "output" in document)

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield one rollout for each sample; the epochs of a sample are samples of the same problem."""
        for sample in as_dicts(document["samples"]) if "eval" in document else [document]:
            yield _of_sample(sample, origin)


def _of_sample(sample: Row, origin: RowOrigin) -> Row:
    output = as_dict(sample.get("output"))
    choice = next(iter(as_dicts(output.get("choices"))), {})
    error, limit = sample.get("error"), as_dict(sample.get("limit"))
    message = as_text(as_dict(error).get("message")) or as_text(error)
    usages = [as_dict(each) for each in as_dict(sample.get("model_usage")).values()]
    model = as_text(output.get("model"))
    epoch = as_whole_number(sample.get("epoch"))
    return {
        "instance_id": as_text(sample.get("id")) or origin.generated_id,
        "sample_id": epoch - 1 if epoch else None,
        "messages": _messages(sample, choice),
        "tools": _tools(sample),
        "finish_reason": as_text(choice.get("stop_reason")),
        "exit_status": f"{limit['type']}_limit" if as_text(limit.get("type")) else None,
        "usage": make_usage(_sum(usages, "input_tokens"), _sum(usages, "output_tokens")),
        "error": make_failure("sample_error", message) if error else None,
        "metadata": {"model": model} if model else None,
        **make_verdict(_points(as_dict(sample.get("scores")) or {"score": sample.get("score")})),
    }


def _sum(uses: list[Row], name: str) -> int | None:
    known = [amount for each in uses if (amount := as_whole_number(each.get(name))) is not None]
    return sum(known) if known else None


def _points(scores: Mapping[str, Any]) -> float | None:
    """Return the value of the first score that has one: a number, a grade, or the only value of an object."""
    values = (_value(as_dict(score).get("value")) for score in scores.values())
    return next((value for value in values if value is not None), None)


def _value(value: Any) -> float | None:
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    if not isinstance(value, str):
        return as_number(value)
    grade = _GRADES.get(value, _GRADES.get(value.lower()))
    if grade is not None:
        return grade
    try:
        return as_number(float(value))
    except ValueError:
        return None


def _messages(sample: Row, choice: Row) -> Chat:
    attachments = as_dict(sample.get("attachments"))
    recorded = as_dicts(sample.get("messages"))
    if not recorded:
        prompt = sample.get("input")
        recorded = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else as_dicts(prompt)
        recorded += [as_dict(choice.get("message"))] if choice.get("message") else []
    return [_message(_resolve_attachments(message, attachments, _DEEPEST)) for message in recorded]


def _resolve_attachments(value: Any, attachments: Row, levels: int) -> Any:
    """Return a value with attachments in place of the references to them, in at most so many levels."""
    if isinstance(value, str) and value.startswith(_ATTACHMENT):
        return attachments.get(value.removeprefix(_ATTACHMENT), value)
    if isinstance(value, dict) and levels:
        return {key: _resolve_attachments(item, attachments, levels - 1) for key, item in value.items()}
    if isinstance(value, list) and levels:
        return [_resolve_attachments(item, attachments, levels - 1) for item in value]
    return value


def _message(recorded: Row) -> Row:
    message = {key: value for key, value in recorded.items() if key not in _UNUSED_FIELDS and value is not None}
    if recorded.get("role") == "tool":
        named = as_text(recorded.get("function"))
        error = as_text(as_dict(recorded.get("error")).get("message"))
        message |= {"name": named} if named else {}
        message |= {"content": error} if error and not message.get("content") else {}
        return message
    if recorded.get("role") != "assistant":
        message.pop("tool_call_id", None)  # in a user's message, a list of the calls whose results it contains
        return message
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [_part(part) for part in content]
    if calls := as_dicts(message.pop("tool_calls", None)):
        message["tool_calls"] = [_call(call) for call in calls]
    return exclude_from_training(message) if recorded.get("source") == "input" else message


def _part(part: Any) -> Any:
    """Return a part of a content, with the type `server_tool_use` for a call that the server ran during the answer."""
    return {**part, "type": "server_tool_use"} if isinstance(part, dict) and part.get("type") == "tool_use" else part


def _call(call: Row) -> Row:
    if call.get("type") == "custom" or isinstance(call.get("function"), dict):
        return call
    function = {"name": call.get("function"), "arguments": call.get("arguments")}
    return {"id": call.get("id"), "type": "function", "function": function}


def _tools(sample: Row) -> list[Row] | None:
    """Return the tools of the first model request that had any; only the events record them."""
    events = (event for event in as_dicts(sample.get("events")) if event.get("event") == "model")
    return next((tools for event in events if (tools := openai_tools(event.get("tools")))), None)
