"""Outputs of OpenHands' evaluations (`output.jsonl`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    as_dict,
    as_dicts,
    as_text,
    find_verdict,
    first_text,
    make_failure,
    openai_tools,
    parse_json_text,
)
from rollmill.files.rows import Row

ENTRY = ProducerEntry("openhands", "OpenHands", "output.jsonl of its evaluations")

_IGNORED_EVENTS = frozenset({
    "recall", "change_agent_state", "agent_state_changed", "condensation", "condensation_request", "null", "start",
    "pause", "resume", "stop", "agent_condensation", "loop_recovery", "loop_detection",
})  # fmt: skip
"""Events that no model reads or writes."""
_RUN_FIELDS = frozenset({"test_result", "metrics", "metadata"})
_ADDED_ARGUMENTS = frozenset(
    {"thought", "hidden", "confirmation_state", "is_input", "blocking", "security_risk", "cwd"}
)
"""Arguments of an action that OpenHands adds to those that the model wrote."""
_FINAL_STATES = frozenset({
    "AgentStuckInLoopError", "stuck in a loop", "reached maximum iteration", "reached maximum budget",
    "MaxIterationsReached",
})  # fmt: skip
"""Parts of errors that the model itself caused, or that report a limit: these rollouts have not failed."""


class OpenHands:
    """Reads `{"instance_id", "history", "test_result", "metadata", ...}`: events, in older files pairs of them."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a row has events, or the outcome of its evaluation."""
        history = parse_json_text(document.get("history")) if isinstance(document, dict) else None
        if not isinstance(history, list):
            return False
        first = next(_events(history), None)
        is_event = first is not None and ("action" in first or "observation" in first or "kind" in first)
        has_run = not _RUN_FIELDS.isdisjoint(document)
        return (is_event or not history) and "instance_id" in document and has_run

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the one rollout, with the report of its tests as the verdict."""
        history = _History()
        for event in _events(parse_json_text(document["history"])):
            history.take(event)
        result = as_dict(document.get("test_result"))
        error = as_text(document.get("error"))
        has_failed = error is not None and not any(state in error for state in _FINAL_STATES)
        if not has_failed and as_dict(result.get("report")).get("error_eval") is True:
            error, has_failed = "error_eval: the tests could not be run", True
        model = as_dict(as_dict(document.get("metadata")).get("llm_config")).get("model")
        yield {
            "instance_id": as_text(document.get("instance_id")) or origin.generated_id,
            "messages": history.messages,
            "tools": history.tools,
            "model_calls": history.answers or None,
            "git_diff": as_text(result.get("git_patch")),
            "exit_status": error,
            "error": make_failure(error.split(":", 1)[0][:60], error) if error and has_failed else None,
            "metadata": {"model": model} if as_text(model) else None,
            **find_verdict(document, result.get("report"), document.get("report"), result),
        }


def _events(history: list[Any]) -> Iterator[Row]:
    for item in history:
        yield from as_dicts(item) if isinstance(item, list) else as_dicts([item])


class _History:
    """Converts events to messages, in their order."""

    def __init__(self) -> None:
        self.messages: Chat = []
        self.tools: list[Row] | None = None
        self.answers = 0
        self._last_response: Any = None
        self._plain_call_ids: set[Any] = set()

    def take(self, event: Row) -> None:
        """Convert one event."""
        kind = as_text(event.get("kind"))
        if kind is not None and kind.endswith("Event"):
            self._take_event_of_sdk(kind, event)
        elif isinstance(event.get("action"), str):
            self._take_action(event)
        elif isinstance(event.get("observation"), str) and event["observation"] not in _IGNORED_EVENTS:
            self._take_observation(event)

    def _take_action(self, event: Row) -> None:
        action, args = event["action"], as_dict(event.get("args"))
        call = as_dict(event.get("tool_call_metadata"))
        if action == "system":
            self.messages.append({"role": "system", "content": args.get("content")})
            self.tools = openai_tools(args.get("tools"))
        elif call:
            self._take_response(as_dict(call.get("model_response")))
        elif action in _IGNORED_EVENTS:
            return
        elif event.get("source") == "user":
            content = args.get("content") if action == "message" else args.get("thought") or args.get("command")
            self.messages.append({"role": "user", "content": content})
        elif action in ("message", "finish", "think"):
            content = first_text(args, ("content", "final_thought", "thought"))
            self._answer({"role": "assistant", "content": content or ""})
        else:
            self._take_plain_action(action, event, args)

    def _take_response(self, response: Row) -> None:
        """Add an answer of the model; an answer with several calls is repeated in an event for each."""
        response_id = response.get("id")
        if response_id is not None and response_id == self._last_response:
            return
        self._last_response = response_id
        choice = next(iter(as_dicts(response.get("choices"))), {})
        if message := as_dict(choice.get("message")):
            self._answer({"role": "assistant", **message, "finish_reason": choice.get("finish_reason")})

    def _take_plain_action(self, action: str, event: Row, args: Row) -> None:
        """Add an action of a model that calls no tools, as a call of a tool with the action's name."""
        arguments = {key: value for key, value in args.items() if key not in _ADDED_ARGUMENTS and value is not None}
        call_id = f"event-{event.get('id')}"
        self._plain_call_ids.add(call_id)
        function = {"name": action, "arguments": orjson.dumps(arguments).decode()}
        calls = [{"id": call_id, "type": "function", "function": function}]
        self._answer({"role": "assistant", "content": args.get("thought") or "", "tool_calls": calls})

    def _take_observation(self, event: Row) -> None:
        call = as_dict(event.get("tool_call_metadata"))
        call_id = f"event-{event.get('cause')}"
        if call:
            result = {"tool_call_id": call.get("tool_call_id"), "name": call.get("function_name")}
            self.messages.append({"role": "tool", "content": event.get("content"), **result})
        elif call_id in self._plain_call_ids:
            self._plain_call_ids.discard(call_id)
            self.messages.append({"role": "tool", "content": event.get("content"), "tool_call_id": call_id})
        elif event.get("content"):
            self.messages.append({"role": "user", "content": event["content"]})

    def _take_event_of_sdk(self, kind: str, event: Row) -> None:
        if kind == "SystemPromptEvent":
            self.messages.append({"role": "system", "content": as_dict(event.get("system_prompt")).get("text")})
            self.tools = openai_tools(event.get("tools"))
        elif kind == "MessageEvent":
            message = as_dict(event.get("llm_message"))
            if message.get("role") == "assistant":
                self._answer(message)
            elif message:
                self.messages.append(message)
        elif kind == "ActionEvent":
            self._take_action_of_sdk(event)
        elif kind in ("ObservationEvent", "AgentErrorEvent", "UserRejectObservation"):
            output = event.get("error") or as_dict(event.get("observation"))
            content = output.get("content") or output.get("output") if isinstance(output, dict) else output
            self.messages.append({"role": "tool", "content": content, "tool_call_id": event.get("tool_call_id")})

    def _take_action_of_sdk(self, event: Row) -> None:
        recorded = as_dict(event.get("tool_call"))
        plain = {name: recorded.get(name) for name in ("name", "arguments")}
        function = as_dict(recorded.get("function")) or plain
        call = {"id": event.get("tool_call_id") or recorded.get("id"), "type": "function", "function": function}
        response_id = event.get("llm_response_id")
        # The calls of one answer are an event each: they are joined again.
        if response_id is not None and response_id == self._last_response and self.messages:
            answer = next((each for each in reversed(self.messages) if each.get("role") == "assistant"), None)
            if answer is not None and isinstance(answer.get("tool_calls"), list):
                answer["tool_calls"].append(call)
                return
        self._last_response = response_id
        reasoning = event.get("reasoning_content")
        more = {"reasoning_content": reasoning} if reasoning else {}
        self._answer({"role": "assistant", "content": event.get("thought"), "tool_calls": [call], **more})

    def _answer(self, message: Row) -> None:
        self.answers += 1
        self.messages.append({key: value for key, value in message.items() if value is not None})
