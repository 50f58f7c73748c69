"""Configuration of the scripted server, a fake OpenAI-compatible server for tests and benchmarks.

It sets the server's responses, latencies and faults.
"""

from __future__ import annotations

import random
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict


class ScriptedAnswer(BaseModel):
    """One response in a conversation."""

    model_config = ConfigDict(extra="forbid")

    content: str | None = ""
    reasoning: str | None = None
    """Reasoning content, as from vLLM's reasoning parsers."""
    reasoning_keys: list[str] = ["reasoning", "reasoning_content"]
    """The reasoning is sent under each of these keys of the message, as different servers name it."""
    tool_calls: list[Any] = []
    """In the message's format."""
    finish_reason: str = "stop"
    stop_reason: str | int | None = None
    """As vLLM reports it: a stop string, a token id, or None for the end token."""


class Conversation(BaseModel):
    """The responses of a conversation, turn by turn."""

    model_config = ConfigDict(extra="forbid")

    when: str = ""
    """The conversation applies to requests in which some message contains this text; empty for all with messages."""
    answers: list[str | ScriptedAnswer]
    """Indexed by the number of assistant messages in the request; the last one is repeated. `{digit}` and `{seed}` are
    replaced as in `Script.completion`."""


class Script(BaseModel):
    """The configuration of one server; also the JSON that `--script` of `rollmill.inference.scripted` takes."""

    model_config = ConfigDict(extra="forbid")

    model: str = "scripted"
    owned_by: str = "sglang"
    """Owner of the model in `/v1/models`: with `sglang` or `vllm`, rollmill's client also sends the fields
    that go beyond OpenAI's."""
    latency_s: float = 0.0
    tail: float | None = None
    """Exponent of a Pareto distribution of latencies with minimum `latency_s`; None for a constant latency."""
    longest_s: float = 60.0
    """Upper bound of latencies with a tail."""
    limit: int | None = None
    """Concurrent requests that the server can process at full speed; None for any number."""
    thrash: float = 2.0
    """Beyond the limit, a request takes (concurrent / limit) ** thrash times as long: with 1 throughput stays constant,
    with more it falls."""
    completion: str = "It is <answer>{digit}</answer>."
    """`{digit}`: the seed's last decimal digit; `{seed}`: the seed."""
    completion_bytes: int = 0
    """Completions are padded to this length."""
    finish_reason: str = "stop"
    reasoning: str | None = None
    """Reasoning content of `completion`."""
    conversations: list[Conversation] = []
    """The first one that applies to a request answers it, in place of `completion`."""
    context_tokens: int | None = None
    """Longer requests are refused with vLLM's message; for this check, a token is four bytes of the request's JSON."""
    faults: list[str] = []
    """Faults of the first requests, one each; later requests are answered. A fault is a status such as `429`, or:

    - `close`: the connection is closed without a response
    - `reset`: the connection is reset within the response
    - `hang`: no response, and the connection stays open
    - `garbage`: status 200 with incomplete JSON
    - `empty`: status 200 without choices
    """
    always: str | None = None
    """The fault of every request after those of `faults`; None for answers."""
    failing_s: float = 0.0
    """Seconds after the start in which every request is answered with 500."""
    retry_after: str | None = None
    """`Retry-After` header of 429 and 503."""
    die_after: int | None = None
    """Number of the request, counted from 1, at which the process kills itself with SIGKILL."""
    start_s: float = 0.0
    """Seconds before the server listens."""
    start_error: str | None = None
    """Message with which the process exits with code 1 instead of listening."""
    children: bool = False
    """Whether to start two processes, one in the process group and one in its own session, to test that both are ended
    with the server, as vLLM's engine processes must be."""

    def latency(self, seed: int, in_flight: int = 1) -> float:
        """Return the seconds that the request with this seed takes, with `in_flight` concurrent requests."""
        over = 1.0 if self.limit is None else max(1.0, in_flight / self.limit)
        slowdown: float = over**self.thrash
        return self._latency(seed) * slowdown

    def _latency(self, seed: int) -> float:
        if self.tail is None:
            return self.latency_s
        uniform = random.Random(seed).random()
        pareto: float = self.latency_s / (1.0 - uniform) ** (1.0 / self.tail)
        return min(self.longest_s, pareto)

    def answer(self, request: dict[str, Any], seed: int) -> ScriptedAnswer:
        """Return the response to a request."""
        messages = request.get("messages") or []
        for conversation in self.conversations:
            if any(conversation.when in str(message.get("content")) for message in messages):
                turn = sum(message.get("role") == "assistant" for message in messages)
                scripted = conversation.answers[min(turn, len(conversation.answers) - 1)]
                answer = ScriptedAnswer(content=scripted) if isinstance(scripted, str) else scripted
                return answer.model_copy(update={"content": _fill_in(answer.content, seed)})
        text = _fill_in(self.completion, seed) or ""
        return ScriptedAnswer(
            content=text + "." * (self.completion_bytes - len(text)),
            reasoning=self.reasoning,
            finish_reason=self.finish_reason,
        )


def _fill_in(text: str | None, seed: int) -> str | None:
    return text and text.replace("{digit}", str(seed % 10)).replace("{seed}", str(seed))


def render_prompt(messages: list[dict[str, Any]]) -> bytes:
    """Render a prompt with the scripted model's chat template; its tokens are the bytes.

    The prompt of a continued conversation starts with the previous prompt and the previous completion, as
    `encode_message` returns it: a server's prefix cache would have both.
    """
    return (
        b"".join(b"<%s>%s" % (str(each.get("role")).encode(), encode_message(each)) for each in messages)
        + b"<assistant>"
    )


def encode_message(message: dict[str, Any], *, ended: bool = True) -> bytes:
    """Return the scripted model's tokens for a message, with the end token unless `ended` is False."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content") or ""
    parts = [
        b"<think>%s</think>" % str(reasoning).encode() if reasoning else b"",
        content.encode() if isinstance(content, str) else orjson.dumps(content),
        *(_encode_call(call) for call in message.get("tool_calls") or ()),
        b"</>" if ended else b"",
    ]
    return b"".join(parts)


def _encode_call(call: Any) -> bytes:
    function = call.get("function") if isinstance(call, dict) else call
    return b"<call>%s" % orjson.dumps(function, option=orjson.OPT_SORT_KEYS)


def scripted_logprob(token: int) -> float:
    """Return the log-probability that the scripted model gives a token."""
    return -(token % 32) / 32
