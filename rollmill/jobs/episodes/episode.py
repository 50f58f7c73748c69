"""Plays one episode: agents are asked in turn until it is over."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from rollmill.environments.environment import Agent, Environment, Step
from rollmill.errors import RollmillError
from rollmill.generation.identity import rollout_seed
from rollmill.inference.client import RequestFailedError
from rollmill.inference.sampled_tokens import NO_TOKENS, SampledTokens
from rollmill.jobs.episodes.pictures import PictureFolder
from rollmill.jobs.episodes.policies import Policy, PolicyAnswer
from rollmill.jobs.episodes.record import EpisodeTurn
from rollmill.records import Failure, Message, Usage
from rollmill.sandboxes.sandbox import SandboxError
from rollmill.verifiers.failure import VerifierFailed, describe

ResultT = TypeVar("ResultT")

RAISED = "environment_raised"
"""The error type of an episode that its environment's own code ended."""

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls in a thread what blocks: all that belongs to an environment."""


class Cast(NamedTuple):
    """Who plays."""

    policies: Mapping[str, Policy]
    """By agent."""
    max_turns: int
    pictures: PictureFolder
    drop_reasoning: bool = False
    """Whether an agent's earlier thoughts are left out of its prompts."""

    def in_episode(self, group: str, stack: ExitStack) -> Cast:
        """Return the cast for one episode, until the stack ends; see `Policy.in_episode`."""
        policies = {policy.name: stack.enter_context(policy.in_episode(group)) for policy in self.policies.values()}
        return self._replace(policies={agent: policies[policy.name] for agent, policy in self.policies.items()})


@dataclass
class PlayedEpisode:
    """What was played, up to the end or to what broke it off."""

    messages: list[Message] = field(default_factory=list)
    turns: list[EpisodeTurn] = field(default_factory=list)
    contexts: list[dict[str, Any]] = field(default_factory=list)
    """Of each turn: what its prompt was rendered with beside its messages."""
    success: bool | None = None
    """None where `error` is not."""
    error: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    tokens: list[SampledTokens] = field(default_factory=list)
    """Of each turn's answer; an empty one where they are not known."""
    calls: int = 0
    finish_reason: str | None = None
    seconds: float = 0.0


class _BrokenOffError(Exception):
    def __init__(self, error: Failure) -> None:
        super().__init__(error.message)
        self.error = error


async def play(make: Callable[[], Environment], cast: Cast, *, seed: int, in_thread: InThread) -> PlayedEpisode:
    """Play one episode. What fails on the way is `error`, with the agent, the turn and the call that failed.

    Raises what concerns the whole run: `ServingError` and `RunStoppedError` of the policies.

    Args:
        make: Makes the environment, in a thread.
        cast: Who plays.
        seed: The rollout's.
        in_thread: Runs a function in a thread of the environments.
    """
    played = PlayedEpisode()
    began = time.monotonic()
    try:
        await _Episode(cast, seed, in_thread, played).play(make)
    except _BrokenOffError as broken:
        played.error = broken.error
    played.seconds = time.monotonic() - began
    return played


At = Callable[[str], None]
"""Notes, in a thread, which of an environment's names is called next: what raises is attributed to it."""


class _Ended(NamedTuple):
    """What stands when an agent has acted."""

    step: Step
    order: Sequence[str]
    """Of the next turn, where this one is over."""
    success: bool | None
    """None while the episode goes on."""


class _Episode:
    def __init__(self, cast: Cast, seed: int, in_thread: InThread, played: PlayedEpisode) -> None:
        self._cast = cast
        self._seed = seed
        self._in_thread = in_thread
        self._played = played
        self._thoughts: dict[tuple[str, str], tuple[str, str]] = {}
        """Agent and the text of an answer of its own -> its thoughts, and the server's name for them."""

    async def play(self, make: Callable[[], Environment]) -> None:
        def begin(at: At) -> tuple[Environment, Sequence[str]]:
            at("making the environment")
            environment = make()
            at("turn_order")
            return environment, _order(environment)

        environment, order = await self._call("", begin)
        for turn_idx in range(self._cast.max_turns):
            for position, agent_name in enumerate(order, start=1):
                last = position == len(order)
                final = last and turn_idx + 1 == self._cast.max_turns
                ended = await self._play_turn(environment, agent_name, turn_idx, last=last, final=final)
                if ended.success is not None:
                    self._played.success = ended.success
                    return
            order = ended.order

    async def _play_turn(
        self, environment: Environment, agent_name: str, turn_idx: int, *, last: bool, final: bool
    ) -> _Ended:
        """Play one agent's turn. Every hop into a thread costs: one is made before the answer and one after it.

        Args:
            environment: The environment, which is used in its thread alone.
            agent_name: The agent's.
            turn_idx: Number of the turn, from 0.
            last: Whether the agent is the last of the turn.
            final: Whether the episode ends with this turn.
        """
        where = f"{agent_name}, turn {turn_idx}: "

        def show(at: At) -> tuple[Agent, list[Message]]:
            at("agents")
            agent = environment.agents[agent_name]
            at("prompt")
            return agent, self._with_thoughts(agent_name, self._cast.pictures.keep(agent.prompt()))

        agent, shown = await self._call(where, show)
        answer, seed = await self._ask(agent, agent_name, turn_idx, shown)
        turn = self._note(agent_name, turn_idx, shown, answer, seed)

        def act(at: At) -> _Ended:
            at("act")
            step = _checked(agent.act(answer.text))
            at("done")
            over = _bool("done", environment.done) or final
            at("success" if over else "turn_order")
            success = _bool("success", environment.success) if over else None
            return _Ended(step, _order(environment) if last and not over else (), success)

        ended = await self._call(where, act)
        info = dict(ended.step.info)
        self._played.turns[-1] = turn.model_copy(update={"reward": ended.step.reward, "info": info})
        return ended

    def _note(
        self, agent_name: str, turn_idx: int, shown: list[Message], answer: PolicyAnswer, seed: int
    ) -> EpisodeTurn:
        """Record the answer, before anything is made of it.

        Args:
            agent_name: The agent's.
            turn_idx: Number of the turn, from 0.
            shown: The messages that the agent was shown.
            answer: The policy's answer.
            seed: The seed that it was sampled with.
        """
        first = len(self._played.messages)
        reply: Message = {"role": "assistant", "content": answer.text}
        if answer.reasoning is not None:
            reply["reasoning_content"] = answer.reasoning
            self._thoughts[agent_name, answer.text] = answer.reasoning, answer.reasoning_key
        if answer.tool_calls:
            reply["tool_calls"] = [call.to_openai() for call in answer.tool_calls]
        if answer.finish_reason is not None:
            reply["finish_reason"] = answer.finish_reason
        if answer.stop_text is not None:
            reply["stop_text"] = answer.stop_text
        self._played.messages += [*shown, reply]
        self._played.tokens.append(answer.tokens or NO_TOKENS)
        self._played.contexts.append(self._cast.policies[agent_name].context)
        turn = EpisodeTurn(
            agent_name=agent_name,
            policy_name=self._cast.policies[agent_name].name,
            turn_idx=turn_idx,
            first=first,
            end=len(self._played.messages),
            reward=None,
            seed=seed,
            finish_reason=answer.finish_reason,
        )
        self._played.turns.append(turn)
        return turn

    def _with_thoughts(self, agent_name: str, shown: list[Message]) -> list[Message]:
        """Give an agent's earlier answers in its prompt the thoughts that it had, which environments do not know."""
        if self._cast.drop_reasoning or not self._thoughts:
            return shown
        return [
            message | {"reasoning_content": thoughts[0]} if thoughts is not None else message
            for message in shown
            for thoughts in [self._thoughts_of(agent_name, message)]
        ]

    def _thoughts_of(self, agent_name: str, message: Message) -> tuple[str, str] | None:
        content = message.get("content")
        if message.get("role") != "assistant" or not isinstance(content, str) or "reasoning_content" in message:
            return None
        return self._thoughts.get((agent_name, content))

    def _sent(self, agent_name: str, shown: list[Message]) -> list[Message]:
        """Return a prompt for a server: pictures as data, thoughts by the name that it has for them."""
        sent = []
        for message in self._cast.pictures.sent(shown):
            content = message.get("content")
            known = self._thoughts.get((agent_name, content)) if isinstance(content, str) else None
            thoughts = message.get("reasoning_content")
            if known is not None and thoughts == known[0]:
                message = {key: value for key, value in message.items() if key != "reasoning_content"}
                message[known[1]] = thoughts
            sent.append(message)
        return sent

    async def _ask(
        self, agent: Agent, agent_name: str, turn_idx: int, shown: list[Message]
    ) -> tuple[PolicyAnswer, int]:
        policy = self._cast.policies[agent_name]
        seed = rollout_seed(self._seed, agent_name, turn_idx)
        where = f"{agent_name}, turn {turn_idx}: "
        try:
            answer = await policy.answer(agent, self._sent(agent_name, shown), seed, self._demonstrated(where))
        except RequestFailedError as failure:
            self._played.calls += failure.calls
            raise _BrokenOffError(Failure(type=failure.type, message=f"{where}{failure.message}")) from None
        before = self._played.usage
        self._played.usage = Usage(
            prompt_tokens=before.prompt_tokens + answer.usage.prompt_tokens,
            completion_tokens=before.completion_tokens + answer.usage.completion_tokens,
        )
        self._played.calls += answer.calls
        self._played.finish_reason = answer.finish_reason
        return answer, seed

    def _demonstrated(self, where: str) -> Callable[[Callable[[], str]], Awaitable[str]]:
        async def call(demonstration: Callable[[], str]) -> str:
            def demonstrate(at: At) -> str:
                at("demonstration")
                return demonstration()

            return await self._call(where, demonstrate)

        return call

    async def _call(self, where: str, call: Callable[[At], ResultT]) -> ResultT:
        """Call the environment's code. Whatever it raises ends the episode, and nothing else."""
        names: list[str] = []
        try:
            result: ResultT = await self._in_thread(lambda: call(names.append))
        except (SandboxError, VerifierFailed) as failure:
            error = Failure(type=failure.type, message=f"{where}{names[-1]}: {failure}")
            raise _BrokenOffError(error) from failure
        except RollmillError as failure:
            raise _BrokenOffError(Failure(type="tool", message=f"{where}{names[-1]}: {failure}")) from failure
        except Exception as error:
            message = f"{where}{names[-1]}: {describe(error)}{_source_line(error)}"
            raise _BrokenOffError(Failure(type=RAISED, message=message)) from error
        return result


def _checked(step: Step) -> Step:
    """Check a step. Raises `TypeError` or `ValueError` for what cannot stand in a journal."""
    reward, info = step
    if isinstance(reward, bool) or not isinstance(reward, float | int) or not math.isfinite(reward):
        raise ValueError(f"a step's reward is {reward!r}: it must be a finite number")
    json_info = orjson.loads(orjson.dumps(dict(info)))
    return Step(float(reward), json_info)


def _order(environment: Environment) -> Sequence[str]:
    order = tuple(environment.turn_order)
    if not order:
        raise ValueError("turn_order is empty: somebody has to act")
    return order


def _bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: it must be True or False")
    return value


def _source_line(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
