"""What a scripted server answers, and how it fails."""

from __future__ import annotations

import random
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict


class ScriptedAnswer(BaseModel):
    """One answer of a conversation."""

    model_config = ConfigDict(extra="forbid")

    content: str | None = ""
    reasoning: str | None = None
    """The thoughts, as vLLM's reasoning parsers tell them apart."""
    reasoning_keys: list[str] = ["reasoning", "reasoning_content"]
    """Under which names they stand in the message."""
    tool_calls: list[Any] = []
    """As they stand in the message."""
    finish_reason: str = "stop"
    stop_reason: str | int | None = None
    """What ended it: a text of the request's `stop`, the id of a token, or the end token."""


class Conversation(BaseModel):
    """What is answered turn by turn."""

    model_config = ConfigDict(extra="forbid")

    when: str = ""
    """A text that some message of the request holds."""
    answers: list[str | ScriptedAnswer]
    """By the number of the request's messages from the assistant; the last one again and again. `{digit}` and `{seed}`
    as in `Script.completion`."""


class Script(BaseModel):
    """How the server behaves."""

    model_config = ConfigDict(extra="forbid")

    model: str = "scripted"
    owned_by: str = "sglang"
    """Whose the model is by `/v1/models`: `sglang` and `vllm`, as these servers say, take all fields of a request."""
    latency_s: float = 0.0
    tail: float | None = None
    """Exponent of a Pareto distribution of latencies with the least value `latency_s`; None: all the same."""
    longest_s: float = 60.0
    """Latencies of the tail end there."""
    limit: int | None = None
    """Requests at a time that it can do; with more it thrashes: the more there are, the longer each takes."""
    thrash: float = 2.0
    """Exponent of how much longer a request takes, by how far beyond the limit their number is when it comes: with 1
    the rate stays what it is, with more it falls."""
    completion: str = "It is <answer>{digit}</answer>."
    """`{digit}`: the seed's last decimal; `{seed}`: the seed."""
    completion_bytes: int = 0
    """Completions are filled up to this length."""
    finish_reason: str = "stop"
    reasoning: str | None = None
    """Thoughts beside `completion`."""
    conversations: list[Conversation] = []
    """The first that fits a request answers it, instead of `completion`."""
    context_tokens: int | None = None
    """Requests of more tokens are refused as vLLM does it; a token is four bytes of the request's JSON."""
    faults: list[str] = []
    """What the first requests meet, one each: `reset`, `hang`, `garbage`, `empty`, `close`, or a status such as `429`,
    `500`, `400`. After these, requests are answered."""
    always: str | None = None
    """A fault that every later request meets."""
    failing_s: float = 0.0
    """For this long after the start every request is answered 500."""
    retry_after: str | None = None
    """Sent with 429 and 503."""
    die_after: int | None = None
    """The process kills itself with SIGKILL at this request."""
    start_s: float = 0.0
    """Seconds before the server listens."""
    start_error: str | None = None
    """Instead of listening, say this and end with code 1."""
    children: bool = False
    """Start two processes as vLLM does its engine: one in the group, one that leaves the session."""

    def latency(self, seed: int, in_flight: int = 1) -> float:
        """Return seconds that the request with this seed takes, where it is one of so many."""
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
        """Return what the request is answered."""
        messages = request.get("messages") or []
        for conversation in self.conversations:
            if any(conversation.when in str(message.get("content")) for message in messages):
                turn = sum(message.get("role") == "assistant" for message in messages)
                scripted = conversation.answers[min(turn, len(conversation.answers) - 1)]
                answer = ScriptedAnswer(content=scripted) if isinstance(scripted, str) else scripted
                return answer.model_copy(update={"content": _filled(answer.content, seed)})
        text = _filled(self.completion, seed) or ""
        return ScriptedAnswer(
            content=text + "." * (self.completion_bytes - len(text)),
            reasoning=self.reasoning,
            finish_reason=self.finish_reason,
        )


def _filled(text: str | None, seed: int) -> str | None:
    return text and text.replace("{digit}", str(seed % 10)).replace("{seed}", str(seed))


def rendered(messages: list[dict[str, Any]]) -> bytes:
    """Return a prompt as the scripted model's template writes it; its tokens are the bytes.

    What a conversation adds comes behind what it had, its answers as they were `written`.
    """
    return b"".join(b"<%s>%s" % (str(each.get("role")).encode(), written(each)) for each in messages) + b"<assistant>"


def written(message: dict[str, Any], *, ended: bool = True) -> bytes:
    """Return what the scripted model writes to say a message, with its end, where it is not cut off."""
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content")
    parts = [
        b"<think>%s</think>" % str(thoughts).encode() if thoughts else b"",
        content.encode() if isinstance(content, str) else orjson.dumps(content) if content else b"",
        *(_written_call(call) for call in message.get("tool_calls") or ()),
        b"</>" if ended else b"",
    ]
    return b"".join(parts)


def _written_call(call: Any) -> bytes:
    function = call.get("function") if isinstance(call, dict) else call
    return b"<call>%s" % orjson.dumps(function, option=orjson.OPT_SORT_KEYS)


def scripted_logprob(token: int) -> float:
    """Return the log-probability that the scripted model gives a token."""
    return -(token % 32) / 32
