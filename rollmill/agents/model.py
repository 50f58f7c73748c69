"""Implements mini-swe-agent's model interface on the chat client."""

from __future__ import annotations

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
from rollmill.generation.sampling import request_context, stop_texts
from rollmill.inference.answers import Completion, ToolCall
from rollmill.inference.client import RequestFailedError
from rollmill.inference.sampled_tokens import NO_TOKENS, SampledTokens
from rollmill.records import Message, Usage, is_cut_off

_FOR_TOOLS = ("parallel_tool_calls", "tool_choice")
_SENT = ("role", "content", "tool_calls", "tool_call_id")
MALFORMED = "malformed_arguments"
"""Key under which a tool call's arguments that are not a JSON object are sent back, as text in an object."""


class BlockingClient(Protocol):
    """The synchronous interface of `rollmill.inference.client.ChatClient`."""

    def complete(self, body: bytes) -> Completion:
        """Complete as `ChatClient.complete` does."""
        ...


class ContextLengthExceeded(InterruptAgentFlow):
    """The agent's conversation no longer fits into the model."""


def turn_seed(seed: int, turn: int) -> int:
    """Return the sampling seed of a rollout's `turn`-th assistant turn (1-based), 0 <= seed < 2**31."""
    return int(content_key([seed, turn])[:8], 16) >> 1


def chat_fields(settings: AgentSettings) -> dict[str, Any]:
    """Return the fields of every request except model, messages and seed."""
    if settings.mode == "tools":
        return {**settings.request, "tools": [BASH_TOOL]}
    # Servers refuse tool options in a request without tools.
    return {name: value for name, value in settings.request.items() if name not in _FOR_TOOLS}


class ChatModel:
    """One rollout's model: sends requests, parses the actions of answers, and counts requests and tokens."""

    def __init__(self, client: BlockingClient, settings: AgentSettings, *, model: str, seed: int) -> None:
        """Build the fields that all requests share.

        Args:
            client: Sends the requests.
            settings: Mode, templates and sampling fields.
            model: Served model name of every request.
            seed: The rollout's seed; each request's is derived from it (`turn_seed`).
        """
        self.config = settings
        self._client = client
        self._model = model
        self._seed = seed
        self._fixed = {**chat_fields(settings), "model": model}
        self.context = request_context(self._fixed)
        """Inputs of the chat template beside the messages (`tools`, `chat_template_kwargs`), for the record."""
        self._stops = stop_texts(self._fixed)
        self.turns = 0
        """Assistant turns requested."""
        self.requests_sent = 0
        """HTTP requests for them, retries included."""
        self.usage = Usage()
        self.tokens: list[SampledTokens] = []
        """Sampled tokens of each answer; empty where the server did not return them."""
        self.finish_reason: str | None = None
        """Of the last answer."""

    # mini-swe-agent's interface of a model, which fixes these names and signatures: `query`, `format_message`,
    # `format_observation_messages`, `get_template_vars`, `serialize`, and the attribute `config`.

    def query(self, messages: list[Message], **kwargs: Any) -> Message:
        """Return the next answer, its commands in `extra.actions`.

        Raises `FormatError` if the answer contains no command that can be run; the error carries the answer and the
        message to send back. Raises `ContextLengthExceeded` if the conversation does not fit into the model's context,
        `RequestFailedError` and `ServingError` as the client does.
        """
        completion = self._complete(messages)
        tool_calls = [
            call._replace(id=call.id or f"call_{self.turns}_{number}")
            for number, call in enumerate(completion.tool_calls if self.config.mode == "tools" else ())
        ]
        answer: Message = {"role": "assistant", "content": completion.text}
        if completion.reasoning is not None:
            answer["reasoning_content"] = completion.reasoning
        if tool_calls:
            answer["tool_calls"] = [call.to_openai() for call in tool_calls]
        # Fields beside `extra` are for the record. `extra` is mini-swe-agent's; `reasoning_key` is for later requests.
        answer["finish_reason"] = completion.finish_reason
        if (stop_text := completion.stop_text(self._stops)) is not None:
            answer["stop_text"] = stop_text
        answer["extra"] = {"reasoning_key": completion.reasoning_key}
        if any(sent_arguments(call.arguments) != call.arguments for call in tool_calls):
            # For the record, from which training renders the later turns' context.
            answer["extra"]["sent_arguments"] = [sent_arguments(call.arguments) for call in tool_calls]
        try:
            answer["extra"]["actions"] = self._parse_actions(completion, tool_calls)
        except FormatError as error:
            raise FormatError(answer, *_error_messages(error.messages[0], tool_calls)) from None
        return answer

    def _complete(self, messages: list[Message]) -> Completion:
        """Request the next assistant turn, and count it."""
        self.turns += 1
        body = {
            **self._fixed,
            "messages": [
                to_request_message(message, drop_reasoning=self.config.drop_reasoning) for message in messages
            ],
            "seed": turn_seed(self._seed, self.turns),
        }
        try:
            completion = self._client.complete(orjson.dumps(body))
        except RequestFailedError as failure:
            self.requests_sent += failure.calls
            # A first request that is too long is the problem's fault, not the agent's.
            if self.turns > 1 and failure.too_long:
                raise ContextLengthExceeded(exit_message("ContextLengthExceeded", failure.message)) from None
            raise
        self.requests_sent += completion.calls
        self.finish_reason = completion.finish_reason
        self.tokens.append(completion.tokens or NO_TOKENS)
        self.usage = Usage(
            prompt_tokens=self.usage.prompt_tokens + completion.usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens + completion.usage.completion_tokens,
        )
        return completion

    def _parse_actions(self, completion: Completion, tool_calls: list[ToolCall]) -> list[dict[str, Any]]:
        """Return the commands of an answer, from its text or its tool calls. Raises `FormatError`."""
        template = self.config.format_error_template
        # mini-swe-agent's templates know one name for an answer that was cut off.
        reason = "length" if is_cut_off(completion.finish_reason) else completion.finish_reason
        error_context: dict[str, Any] = {"finish_reason": reason}
        if self.config.mode == "text":
            parsed: list[dict[str, Any]] = parse_regex_actions(
                completion.text,
                action_regex=self.config.action_regex,
                format_error_template=template,
                template_kwargs=error_context | {"has_tool_calls": False},
            )
            return parsed
        # The shape of litellm's objects, which the parser expects.
        openai_calls = [
            SimpleNamespace(id=call.id, function=SimpleNamespace(name=call.name, arguments=call.arguments))
            for call in tool_calls
        ]
        actions: list[dict[str, Any]] = parse_toolcall_actions(
            openai_calls, format_error_template=template, template_kwargs=error_context
        )
        if all(isinstance(action["command"], str) for action in actions):
            return actions
        error_context |= {"actions": [], "has_tool_calls": True, "error": "The 'command' argument must be a string."}
        content = AgentTemplate(template).render(**error_context)
        raise FormatError({"role": "user", "content": content, "extra": {"interrupt_type": "FormatError"}})

    def format_message(self, **kwargs: Any) -> Message:
        """Return the fields as a message, unchanged."""
        return kwargs

    def format_observation_messages(
        self, message: Message, outputs: list[dict[str, Any]], template_vars: dict[str, Any] | None = None
    ) -> list[Message]:
        """Render the outputs of an answer's commands as messages to the model."""
        rendered: dict[str, Any] = {
            "observation_template": self.config.observation_template,
            "template_vars": template_vars,
        }
        observations: list[Message]
        if self.config.mode == "text":
            observations = format_observation_messages(outputs, **rendered)
        else:
            observations = format_toolcall_observation_messages(
                actions=message["extra"]["actions"], outputs=outputs, **rendered
            )
        return observations

    def get_template_vars(self, **kwargs: Any) -> dict[str, Any]:
        """Return `model_name` and `model_kwargs`."""
        return {"model_name": self._model, "model_kwargs": self.config.request}

    def serialize(self) -> dict[str, Any]:
        """Return nothing: the rollout's record and the run's manifest have the model already."""
        return {}


def exit_message(status: str, content: str = "") -> Message:
    """Return the message that ends an agent: mini-swe-agent's loop stops at the role `exit`."""
    return {"role": "exit", "content": content, "extra": {"exit_status": status, "submission": ""}}


def to_request_message(message: Message, *, drop_reasoning: bool = False) -> Message:
    """Return a message with only the keys that servers accept (`_SENT`), and with its reasoning.

    Arguments of tool calls that are not a JSON object are wrapped in one, since chat templates parse them.

    Reasoning is sent back under the key in which the server returned it: some servers accept no other, and a few
    refuse reasoning at all, for which `drop_reasoning` removes it.
    """
    sent = {key: message[key] for key in _SENT if key in message}
    if "reasoning_content" in message and not drop_reasoning:
        sent[message.get("extra", {}).get("reasoning_key", "reasoning_content")] = message["reasoning_content"]
    if "tool_calls" in sent:
        sent["tool_calls"] = [
            call | {"function": call["function"] | {"arguments": sent_arguments(call["function"]["arguments"])}}
            for call in sent["tool_calls"]
        ]
    return sent


def sent_arguments(arguments: str) -> str:
    """Return a tool call's arguments if they are a JSON object, else one that wraps them as text."""
    try:
        if isinstance(orjson.loads(arguments), dict):
            return arguments
    except orjson.JSONDecodeError:
        pass
    return orjson.dumps({MALFORMED: arguments}).decode()


def _error_messages(error: Message, tool_calls: list[ToolCall]) -> list[Message]:
    """Return the error as a user message, or as the tool response of each call, of which none was run."""
    if not tool_calls:
        return [error]
    # Chat templates and servers require a response to every call.
    return [error | {"role": "tool", "tool_call_id": call.id} for call in tool_calls]
