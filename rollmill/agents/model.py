"""The model: mini-swe-agent's interface over this project's client."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, Protocol

import orjson

from rollmill.agents.mini_swe import (
    BASH_TOOL,
    FormatError,
    InterruptAgentFlow,
    format_observation_messages,
    format_toolcall_observation_messages,
    parse_regex_actions,
    parse_toolcall_actions,
)
from rollmill.agents.settings import AgentSettings
from rollmill.agents.templates import AgentTemplate
from rollmill.generation.identity import content_key
from rollmill.inference.client import Completion, RequestFailedError, ToolCall
from rollmill.records import Message, Usage

_FOR_TOOLS = ("parallel_tool_calls", "tool_choice")
_SENT = ("role", "content", "tool_calls", "tool_call_id")
_REFUSED_STATUSES = frozenset(("http_400", "http_413", "http_422"))
# vLLM, SGLang, llama.cpp, TGI and OpenAI each have words of their own, some of them several.
_TOO_LONG = re.compile(
    r"context[ _]?(length|size|window)|maximum model length|maximum (input|sequence) length|max_model_len|"
    r"prompt is too long|inputs.{0,40}tokens.{0,40}must be <=",
    re.IGNORECASE,
)


class BlockingClient(Protocol):
    """`ChatClient` for a thread that waits."""

    def complete(self, body: bytes) -> Completion:
        """As `ChatClient.complete`."""
        ...


class ContextLengthExceeded(InterruptAgentFlow):
    """The agent's conversation no longer fits into the model."""


def call_seed(seed: int, call: int) -> int:
    """The sampling seed of a rollout's `call`-th request (1-based), 0 <= seed < 2**31."""
    return int(content_key([seed, call])[:8], 16) >> 1


def is_too_long(failure: RequestFailedError) -> bool:
    """Whether the server refused a request because it has too many tokens, by the server's own words."""
    return failure.type in _REFUSED_STATUSES and _TOO_LONG.search(failure.message) is not None


class ChatModel:
    """One rollout's model: asks, finds the actions in the answers, and counts."""

    def __init__(self, client: BlockingClient, settings: AgentSettings, *, model: str, seed: int) -> None:
        self.config = settings
        self._client = client
        self._model = model
        self._seed = seed
        self.asked = 0
        """Turns asked for."""
        self.calls = 0
        """Requests sent, retries included."""
        self.usage = Usage()
        self.finish_reason: str | None = None
        """Of the last answer."""

    def query(self, messages: list[Message], **kwargs: Any) -> Message:
        """The next answer, its commands in `extra.actions`.

        Raises `FormatError`, with the answer and what is said of it, where it has no commands that can be run;
        `ContextLengthExceeded`; `RequestFailedError` and `ServingError` as the client does.
        """
        completion = self._ask(messages)
        calls = [
            call._replace(id=call.id or f"call_{self.asked}_{number}")
            for number, call in enumerate(completion.tool_calls if self.config.mode == "tools" else ())
        ]
        answer: Message = {"role": "assistant", "content": completion.text}
        if completion.reasoning is not None:
            answer["reasoning_content"] = completion.reasoning
        if calls:
            answer["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in calls
            ]
        answer["extra"] = {"finish_reason": completion.finish_reason}
        try:
            answer["extra"]["actions"] = self._actions(completion, calls)
        except FormatError as error:
            raise FormatError(answer, *_told(error.messages[0], calls)) from None
        return answer

    def _ask(self, messages: list[Message]) -> Completion:
        self.asked += 1
        body = {
            **self.config.request,
            "model": self._model,
            "messages": [sendable(message) for message in messages],
            "seed": call_seed(self._seed, self.asked),
        }
        if self.config.mode == "tools":
            body["tools"] = [BASH_TOOL]
        else:  # servers refuse these where there are no tools
            body = {name: value for name, value in body.items() if name not in _FOR_TOOLS}
        try:
            completion = self._client.complete(orjson.dumps(body))
        except RequestFailedError as failure:
            self.calls += failure.calls
            if self.asked > 1 and is_too_long(failure):  # a first request that is too long is not the agent's doing
                raise ContextLengthExceeded(exit_message("ContextLengthExceeded", failure.message)) from None
            raise
        self.calls += completion.calls
        self.finish_reason = completion.finish_reason
        self.usage = Usage(
            prompt_tokens=self.usage.prompt_tokens + completion.usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens + completion.usage.completion_tokens,
        )
        return completion

    def _actions(self, completion: Completion, calls: list[ToolCall]) -> list[dict[str, Any]]:
        template = self.config.format_error_template
        told: dict[str, Any] = {"finish_reason": completion.finish_reason}
        if self.config.mode == "text":
            found: list[dict[str, Any]] = parse_regex_actions(
                completion.text,
                action_regex=self.config.action_regex,
                format_error_template=template,
                template_kwargs=told | {"has_tool_calls": False},
            )
            return found
        read = [
            SimpleNamespace(id=call.id, function=SimpleNamespace(name=call.name, arguments=call.arguments))
            for call in calls
        ]
        actions: list[dict[str, Any]] = parse_toolcall_actions(
            read, format_error_template=template, template_kwargs=told
        )
        if all(isinstance(action["command"], str) for action in actions):
            return actions
        told |= {"actions": [], "has_tool_calls": True, "error": "The 'command' argument must be a string."}
        content = AgentTemplate(template).render(**told)
        raise FormatError({"role": "user", "content": content, "extra": {"interrupt_type": "FormatError"}})

    def format_message(self, **kwargs: Any) -> Message:
        """A message as it is."""
        return kwargs

    def format_observation_messages(
        self, message: Message, outputs: list[dict[str, Any]], template_vars: dict[str, Any] | None = None
    ) -> list[Message]:
        """What an answer's commands did, for the model to read."""
        rendered: dict[str, Any] = {
            "observation_template": self.config.observation_template,
            "template_vars": template_vars,
        }
        told: list[Message]
        if self.config.mode == "text":
            told = format_observation_messages(outputs, **rendered)
        else:
            told = format_toolcall_observation_messages(
                actions=message["extra"]["actions"], outputs=outputs, **rendered
            )
        return told

    def get_template_vars(self, **kwargs: Any) -> dict[str, Any]:
        """`model_name` and `model_kwargs`."""
        return {"model_name": self._model, "model_kwargs": self.config.request}

    def serialize(self) -> dict[str, Any]:
        """Nothing: the rollout's row and the run's manifest have it."""
        return {}


def exit_message(status: str, content: str = "") -> Message:
    """The message that ends an agent."""
    return {"role": "exit", "content": content, "extra": {"exit_status": status, "submission": ""}}


def sendable(message: Message) -> Message:
    """A message as servers take it: chat templates read a tool call's arguments as a JSON object."""
    sent = {key: message[key] for key in _SENT if key in message}
    if "tool_calls" in sent:
        sent["tool_calls"] = [
            call | {"function": call["function"] | {"arguments": _object(call["function"]["arguments"])}}
            for call in sent["tool_calls"]
        ]
    return sent


def _object(arguments: str) -> str:
    """The JSON object that they are, or one that shows what they are instead."""
    try:
        if isinstance(orjson.loads(arguments), dict):
            return arguments
    except orjson.JSONDecodeError:
        pass
    return orjson.dumps({"malformed_arguments": arguments}).decode()


def _told(error: Message, calls: list[ToolCall]) -> list[Message]:
    """What is wrong with an answer; of tool calls each is to be answered, and none was run."""
    if not calls:
        return [error]
    return [error | {"role": "tool", "tool_call_id": call.id} for call in calls]
