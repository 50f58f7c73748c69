"""Outputs of OpenHands's evaluations (`output.jsonl`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    failure,
    fields,
    first_text,
    objects,
    openai_tools,
    opened,
    text,
    verdict,
)
from rollmill.files.rows import Row

ENTRY = ProducerEntry("openhands", "OpenHands", "output.jsonl of its evaluations")

_NO_TURNS = frozenset({
    "recall", "change_agent_state", "agent_state_changed", "condensation", "condensation_request", "null", "start",
    "pause", "resume", "stop", "agent_condensation", "loop_recovery", "loop_detection",
})  # fmt: skip
"""Events that no model reads or writes."""
_ABOUT_RUNS = frozenset({"test_result", "metrics", "metadata"})
_NOT_WRITTEN = frozenset({"thought", "hidden", "confirmation_state", "is_input", "blocking", "security_risk", "cwd"})
"""Of an action: what its model has not written as an argument."""
_FINAL_STATES = frozenset({
    "AgentStuckInLoopError", "stuck in a loop", "reached maximum iteration", "reached maximum budget",
    "MaxIterationsReached",
})  # fmt: skip
"""Parts of errors that are the model's own doing, or a limit that it met."""


class OpenHands:
    """Reads `{"instance_id", "history", "test_result", "metadata", ...}`: events, in older files pairs of them."""

    def is_one(self, document: Any) -> bool:
        """Return whether a row has events, or what became of its evaluation."""
        history = opened(document.get("history")) if isinstance(document, dict) else None
        if not isinstance(history, list):
            return False
        first = next(_events(history), None)
        is_event = first is not None and ("action" in first or "observation" in first or "kind" in first)
        told = not _ABOUT_RUNS.isdisjoint(document)
        return (is_event or not history) and "instance_id" in document and told

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the one rollout: its verdict is the report of its tests."""
        history = _History()
        for event in _events(opened(document["history"])):
            history.take(event)
        result = fields(document.get("test_result"))
        error = text(document.get("error"))
        broke = error is not None and not any(state in error for state in _FINAL_STATES)
        if not broke and fields(result.get("report")).get("error_eval") is True:
            error, broke = "error_eval: the tests could not be run", True
        model = fields(fields(document.get("metadata")).get("llm_config")).get("model")
        yield {
            "instance_id": text(document.get("instance_id")) or origin.made_id,
            "messages": history.messages,
            "tools": history.tools,
            "model_calls": history.answers or None,
            "git_diff": text(result.get("git_patch")),
            "exit_status": error,
            "error": failure(error.split(":", 1)[0][:60], error) if error and broke else None,
            "metadata": {"model": model} if text(model) else None,
            **verdict(document, result.get("report"), document.get("report"), result),
        }


def _events(history: list[Any]) -> Iterator[Row]:
    for item in history:
        yield from objects(item) if isinstance(item, list) else objects([item])


class _History:
    """Makes messages of events, in their order."""

    def __init__(self) -> None:
        self.messages: Chat = []
        self.tools: list[Row] | None = None
        self.answers = 0
        self._last_response: Any = None
        self._made_calls: set[Any] = set()

    def take(self, event: Row) -> None:
        """Take one event."""
        kind = text(event.get("kind"))
        if kind is not None and kind.endswith("Event"):
            self._take_event_of_sdk(kind, event)
        elif isinstance(event.get("action"), str):
            self._take_action(event)
        elif isinstance(event.get("observation"), str) and event["observation"] not in _NO_TURNS:
            self._take_observation(event)

    def _take_action(self, event: Row) -> None:
        action, args = event["action"], fields(event.get("args"))
        call = fields(event.get("tool_call_metadata"))
        if action == "system":
            self.messages.append({"role": "system", "content": args.get("content")})
            self.tools = openai_tools(args.get("tools"))
        elif call:
            self._take_response(fields(call.get("model_response")))
        elif action in _NO_TURNS:
            return
        elif event.get("source") == "user":
            said = args.get("content") if action == "message" else args.get("thought") or args.get("command")
            self.messages.append({"role": "user", "content": said})
        elif action in ("message", "finish", "think"):
            said = first_text(args, ("content", "final_thought", "thought"))
            self._answer({"role": "assistant", "content": said or ""})
        else:
            self._take_plain_action(action, event, args)

    def _take_response(self, response: Row) -> None:
        """Take an answer of the model; one with several calls has an event for each."""
        identity = response.get("id")
        if identity is not None and identity == self._last_response:
            return
        self._last_response = identity
        choice = next(iter(objects(response.get("choices"))), {})
        if message := fields(choice.get("message")):
            self._answer({"role": "assistant", **message, "finish_reason": choice.get("finish_reason")})

    def _take_plain_action(self, action: str, event: Row, args: Row) -> None:
        """Take an action of a model that calls no tools: as a call of one with the action's name."""
        arguments = {key: value for key, value in args.items() if key not in _NOT_WRITTEN and value is not None}
        identity = f"event-{event.get('id')}"
        self._made_calls.add(identity)
        function = {"name": action, "arguments": orjson.dumps(arguments).decode()}
        calls = [{"id": identity, "type": "function", "function": function}]
        self._answer({"role": "assistant", "content": args.get("thought") or "", "tool_calls": calls})

    def _take_observation(self, event: Row) -> None:
        call = fields(event.get("tool_call_metadata"))
        made = f"event-{event.get('cause')}"
        if call:
            result = {"tool_call_id": call.get("tool_call_id"), "name": call.get("function_name")}
            self.messages.append({"role": "tool", "content": event.get("content"), **result})
        elif made in self._made_calls:
            self._made_calls.discard(made)
            self.messages.append({"role": "tool", "content": event.get("content"), "tool_call_id": made})
        elif event.get("content"):
            self.messages.append({"role": "user", "content": event["content"]})

    def _take_event_of_sdk(self, kind: str, event: Row) -> None:
        if kind == "SystemPromptEvent":
            self.messages.append({"role": "system", "content": fields(event.get("system_prompt")).get("text")})
            self.tools = openai_tools(event.get("tools"))
        elif kind == "MessageEvent":
            message = fields(event.get("llm_message"))
            if message.get("role") == "assistant":
                self._answer(message)
            elif message:
                self.messages.append(message)
        elif kind == "ActionEvent":
            self._take_action_of_sdk(event)
        elif kind in ("ObservationEvent", "AgentErrorEvent", "UserRejectObservation"):
            told = event.get("error") or fields(event.get("observation"))
            content = told.get("content") or told.get("output") if isinstance(told, dict) else told
            self.messages.append({"role": "tool", "content": content, "tool_call_id": event.get("tool_call_id")})

    def _take_action_of_sdk(self, event: Row) -> None:
        made = fields(event.get("tool_call"))
        function = fields(made.get("function")) or {"name": made.get("name"), "arguments": made.get("arguments")}
        call = {"id": event.get("tool_call_id") or made.get("id"), "type": "function", "function": function}
        identity = event.get("llm_response_id")
        if identity is not None and identity == self._last_response and self.messages:
            before = next((each for each in reversed(self.messages) if each.get("role") == "assistant"), None)
            if before is not None and isinstance(before.get("tool_calls"), list):
                before["tool_calls"].append(call)
                return
        self._last_response = identity
        thoughts = event.get("reasoning_content")
        more = {"reasoning_content": thoughts} if thoughts else {}
        self._answer({"role": "assistant", "content": event.get("thought"), "tool_calls": [call], **more})

    def _answer(self, message: Row) -> None:
        self.answers += 1
        self.messages.append({key: value for key, value in message.items() if value is not None})
