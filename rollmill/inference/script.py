"""What a scripted server answers, and how it fails."""

from __future__ import annotations

import random
from typing import Any

from pydantic import BaseModel, ConfigDict


class ScriptedAnswer(BaseModel):
    """One answer of a conversation."""

    model_config = ConfigDict(extra="forbid")

    content: str | None = ""
    tool_calls: list[Any] = []
    """As they stand in the message."""
    finish_reason: str = "stop"


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
    latency_s: float = 0.0
    tail: float | None = None
    """Exponent of a Pareto distribution of latencies with the least value `latency_s`; None: all the same."""
    longest_s: float = 60.0
    """Latencies of the tail end there."""
    completion: str = "It is <answer>{digit}</answer>."
    """`{digit}`: the seed's last decimal; `{seed}`: the seed."""
    completion_bytes: int = 0
    """Completions are filled up to this length."""
    finish_reason: str = "stop"
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

    def latency(self, seed: int) -> float:
        """Seconds that the request with this seed takes."""
        if self.tail is None:
            return self.latency_s
        uniform = random.Random(seed).random()
        pareto: float = self.latency_s / (1.0 - uniform) ** (1.0 / self.tail)
        return min(self.longest_s, pareto)

    def answer(self, request: dict[str, Any], seed: int) -> ScriptedAnswer:
        """What the request is answered."""
        messages = request.get("messages") or []
        for conversation in self.conversations:
            if any(conversation.when in str(message.get("content")) for message in messages):
                turn = sum(message.get("role") == "assistant" for message in messages)
                said = conversation.answers[min(turn, len(conversation.answers) - 1)]
                answer = ScriptedAnswer(content=said) if isinstance(said, str) else said
                return answer.model_copy(update={"content": _filled(answer.content, seed)})
        text = _filled(self.completion, seed) or ""
        return ScriptedAnswer(
            content=text + "." * (self.completion_bytes - len(text)), finish_reason=self.finish_reason
        )


def _filled(text: str | None, seed: int) -> str | None:
    return text and text.replace("{digit}", str(seed % 10)).replace("{seed}", str(seed))
