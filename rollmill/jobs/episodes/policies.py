"""What answers an agent's prompt: a model, or the environment's own demonstrations."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

import orjson

from rollmill.environments.environment import Agent
from rollmill.errors import InputError
from rollmill.generation.sampling import Sampling
from rollmill.inference.client import ChatClient
from rollmill.records import Message, Usage


class PolicyAnswer(NamedTuple):
    """What a policy says."""

    text: str
    usage: Usage = Usage()
    finish_reason: str | None = None
    calls: int = 0
    reasoning: str | None = None


InThread = Callable[[Callable[[], str]], Awaitable[str]]
"""Calls what belongs to an environment in a thread."""


class Policy(Protocol):
    """Plays any number of agents in any number of episodes."""

    @property
    def name(self) -> str:
        """As rows say it."""
        ...

    async def answer(self, agent: Agent, messages: list[Message], seed: int, in_thread: InThread) -> PolicyAnswer:
        """What it says to `messages`, ready for the OpenAI API. Raises `RequestFailedError`, `ServingError`."""
        ...


class ModelPolicy:
    """A model that is asked over HTTP."""

    def __init__(self, name: str, client: ChatClient, *, model: str, sampling: Sampling) -> None:
        self.name = name
        self._client = client
        self._fixed: dict[str, Any] = {
            "model": model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }

    async def answer(self, agent: Agent, messages: list[Message], seed: int, in_thread: InThread) -> PolicyAnswer:
        """One completion; see `Policy`."""
        said = await self._client.complete(orjson.dumps({**self._fixed, "messages": messages, "seed": seed}))
        return PolicyAnswer(said.text, said.usage, said.finish_reason, said.calls, said.reasoning)


class DemonstrationPolicy:
    """An agent's own demonstrations: `oracle` or `random`."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self._kind = kind

    async def answer(self, agent: Agent, messages: list[Message], seed: int, in_thread: InThread) -> PolicyAnswer:
        """What the agent's method of the policy's kind says. Raises `InputError` where it has none; see `Policy`."""
        method = getattr(agent, self._kind, None)
        if method is None:
            raise InputError(f"policy {self.name}: {type(agent).__name__} has no method {self._kind}: use a model")
        text = await in_thread(method if self._kind == "oracle" else lambda: method(random.Random(seed)))
        return PolicyAnswer(text, finish_reason="stop")
