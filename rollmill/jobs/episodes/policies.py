"""Policies, which answer an agent's prompts: a model, or the environment's own demonstrations."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from typing import Any, NamedTuple, Protocol

import orjson

from rollmill.environments.environment import Agent
from rollmill.errors import InputError
from rollmill.generation.sampling import Sampling, request_context, stop_texts
from rollmill.inference.answers import ToolCall
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import RoutedConversation
from rollmill.inference.sampled_tokens import SampledTokens
from rollmill.records import Message, Usage


class PolicyAnswer(NamedTuple):
    """A policy's answer to one prompt."""

    text: str
    usage: Usage = Usage()
    finish_reason: str | None = None
    calls: int = 0
    reasoning: str | None = None
    reasoning_key: str = "reasoning_content"
    """The server's key for the reasoning, under which it is sent back in later prompts."""
    tool_calls: tuple[ToolCall, ...] = ()
    stop_text: str | None = None
    """The stop text that ended the answer; see `Completion.stop_text`."""
    tokens: SampledTokens | None = None
    """Token ids of prompt and answer; None where they are not known."""


InThread = Callable[[Callable[[], str]], Awaitable[str]]
"""Runs an environment's function in a thread."""


class Policy(Protocol):
    """Acts for any number of agents in any number of episodes."""

    @property
    def name(self) -> str:
        """The policy's name in rows."""
        ...

    @property
    def context(self) -> dict[str, Any]:
        """The chat template's inputs besides the messages; see `request_context`."""
        ...

    def in_episode(self, group: str) -> AbstractContextManager[Policy]:
        """Return the policy for one episode.

        Episodes of a `group` share the beginning of their prompts, so that they go to one server and its prefix cache.
        """
        ...

    async def answer(self, agent: Agent, messages: list[Message], seed: int, in_thread: InThread) -> PolicyAnswer:
        """Answer `messages`, which are ready for the OpenAI API. Raises `RequestFailedError`, `ServingError`.

        Args:
            agent: The agent to act for.
            messages: The agent's prompt.
            seed: Seed of sampling.
            in_thread: Runs the agent's own code in a thread.
        """
        ...


class ModelPolicy:
    """A model behind an OpenAI-compatible server.

    Args:
        name: The policy's name in rows.
        client: Client of the servers.
        model: The model's name on the servers.
        sampling: Sampling parameters of all requests.
    """

    def __init__(self, name: str, client: ChatClient, *, model: str, sampling: Sampling) -> None:
        self.name = name
        self._client = client
        self._conversation: RoutedConversation | None = None
        self._fixed: dict[str, Any] = {
            "model": model,
            **sampling.request_fields(),
        }
        self.context = request_context(self._fixed)
        self._stops = stop_texts(self._fixed)

    @contextmanager
    def in_episode(self, group: str) -> Iterator[Policy]:
        """Yield the policy for one episode, whose turns stay on one server; see `Policy`."""
        with self._client.endpoints.conversation(group) as conversation:
            policy = copy(self)
            policy._conversation = conversation
            yield policy

    async def answer(self, agent: Agent, messages: list[Message], seed: int, in_thread: InThread) -> PolicyAnswer:
        """Request one completion; see `Policy`.

        Args:
            agent: Not used: the model answers.
            messages: The agent's prompt.
            seed: Seed of sampling.
            in_thread: Not used.
        """
        body = orjson.dumps({**self._fixed, "messages": messages, "seed": seed})
        completion = await self._client.complete(body, self._conversation)
        return PolicyAnswer(
            completion.text,
            completion.usage,
            completion.finish_reason,
            completion.calls,
            completion.reasoning,
            completion.reasoning_key,
            completion.tool_calls,
            completion.stop_text(self._stops),
            completion.tokens,
        )


class DemonstrationPolicy:
    """The demonstrations of an agent's class: its method `oracle` or `random`."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.context: dict[str, Any] = {}
        self._kind = kind

    @contextmanager
    def in_episode(self, group: str) -> Iterator[Policy]:
        """Yield itself; see `Policy`."""
        yield self

    async def answer(self, agent: Agent, messages: list[Message], seed: int, in_thread: InThread) -> PolicyAnswer:
        """Return the answer of the agent's method. Raises `InputError` where it has no such method; see `Policy`.

        Args:
            agent: The agent to act for.
            messages: Not used: the agent knows its state.
            seed: Seed of `random`.
            in_thread: Runs the agent's own code in a thread.
        """
        method = getattr(agent, self._kind, None)
        if method is None:
            raise InputError(f"policy {self.name}: {type(agent).__name__} has no method {self._kind}: use a model")
        text = await in_thread(method if self._kind == "oracle" else lambda: method(random.Random(seed)))
        return PolicyAnswer(text, finish_reason="stop")
