"""Runs one episode: agents act in turn until the environment is done."""

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
"""The error type of an episode that ended with an exception of the environment's own code."""

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a blocking function, such as any of an environment, in a thread."""


class Cast(NamedTuple):
    """The policies of an episode's agents, and the settings of their prompts."""

    policies: Mapping[str, Policy]
    """The policy of each agent, by the agent's name."""
    max_turns: int
    pictures: PictureFolder
    drop_reasoning: bool = False
    """Leave an agent's earlier thoughts out of its prompts."""

    def in_episode(self, group: str, stack: ExitStack) -> Cast:
        """Return the cast for one episode, until the stack ends; see `Policy.in_episode`."""
        policies = {policy.name: stack.enter_context(policy.in_episode(group)) for policy in self.policies.values()}
        return self._replace(policies={agent: policies[policy.name] for agent, policy in self.policies.items()})


@dataclass
class PlayedEpisode:
    """Record of an episode, complete or up to an error."""

    messages: list[Message] = field(default_factory=list)
    turns: list[EpisodeTurn] = field(default_factory=list)
    contexts: list[dict[str, Any]] = field(default_factory=list)
    """The chat template's inputs of each turn, beside messages."""
    success: bool | None = None
    """None where the episode ended with an error."""
    error: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    tokens: list[SampledTokens] = field(default_factory=list)
    """Tokens of each turn's answer; empty where they are not known."""
    calls: int = 0
    finish_reason: str | None = None
    seconds: float = 0.0


class _EpisodeFailedError(Exception):
    def __init__(self, error: Failure) -> None:
        super().__init__(error.message)
        self.error = error


async def play(make: Callable[[], Environment], cast: Cast, *, seed: int, in_thread: InThread) -> PlayedEpisode:
    """Run one episode. A failure becomes `error`, whose message has the agent, the turn and the call that failed.

    Raises errors of the whole run: `ServingError` and `RunStoppedError` of the policies.

    Args:
        make: Makes the environment, in a thread.
        cast: The policies of the agents.
        seed: Seed of the rollout.
        in_thread: Runs a function in a thread of the environments.
    """
    record = PlayedEpisode()
    begin = time.monotonic()
    try:
        await _Episode(cast, seed, in_thread, record).play(make)
    except _EpisodeFailedError as failed:
        record.error = failed.error
    record.seconds = time.monotonic() - begin
    return record


MarkCall = Callable[[str], None]
"""Records, in a thread, the environment's attribute that is used next, for the message of an exception."""


class _TurnResult(NamedTuple):
    """State of the environment after an agent has acted."""

    step: Step
    order: Sequence[str]
    """Agents of the next turn, where the agent was the last of this one."""
    success: bool | None
    """None while the episode continues."""


class _Episode:
    """Runs one episode, and records it.

    Args:
        cast: The policies of the agents.
        seed: Seed of the rollout.
        in_thread: Runs a function in a thread of the environments.
        record: Gets all that happens.
    """

    def __init__(self, cast: Cast, seed: int, in_thread: InThread, record: PlayedEpisode) -> None:
        self._cast = cast
        self._seed = seed
        self._in_thread = in_thread
        self._record = record
        self._thoughts: dict[tuple[str, str], tuple[str, str]] = {}
        """(agent, text of one of its answers) -> (thoughts of the answer, the server's key for them)."""

    async def play(self, make: Callable[[], Environment]) -> None:
        """Make the environment, and run the episode to its end."""

        def begin(mark: MarkCall) -> tuple[Environment, Sequence[str]]:
            mark("making the environment")
            environment = make()
            mark("turn_order")
            return environment, _order(environment)

        environment, order = await self._call("", begin)
        for turn_idx in range(self._cast.max_turns):
            for position, agent_name in enumerate(order, start=1):
                last = position == len(order)
                final = last and turn_idx + 1 == self._cast.max_turns
                result = await self._play_turn(environment, agent_name, turn_idx, last=last, final=final)
                if result.success is not None:
                    self._record.success = result.success
                    return
            order = result.order

    async def _play_turn(
        self, environment: Environment, agent_name: str, turn_idx: int, *, last: bool, final: bool
    ) -> _TurnResult:
        """Run one agent's turn. Calls in threads take time: there is one before the answer, and one after it.

        Args:
            environment: The environment, which is used in threads only.
            agent_name: Name of the agent.
            turn_idx: Number of the turn, from 0.
            last: Whether the agent is the last of the turn.
            final: Whether the episode ends with this turn in any case.
        """
        label = f"{agent_name}, turn {turn_idx}: "

        def show(mark: MarkCall) -> tuple[Agent, list[Message]]:
            mark("agents")
            agent = environment.agents[agent_name]
            mark("prompt")
            return agent, self._with_thoughts(agent_name, self._cast.pictures.keep(agent.prompt()))

        agent, prompt = await self._call(label, show)
        answer, seed = await self._request(agent, agent_name, turn_idx, prompt)
        turn = self._record_answer(agent_name, turn_idx, prompt, answer, seed)

        def act(mark: MarkCall) -> _TurnResult:
            mark("act")
            step = _checked(agent.act(answer.text))
            mark("done")
            is_over = _bool("done", environment.done) or final
            mark("success" if is_over else "turn_order")
            success = _bool("success", environment.success) if is_over else None
            return _TurnResult(step, _order(environment) if last and not is_over else (), success)

        result = await self._call(label, act)
        info = dict(result.step.info)
        self._record.turns[-1] = turn.model_copy(update={"reward": result.step.reward, "info": info})
        return result

    def _record_answer(
        self, agent_name: str, turn_idx: int, prompt: list[Message], answer: PolicyAnswer, seed: int
    ) -> EpisodeTurn:
        """Record prompt and answer, before the environment gets the answer: it may fail on it.

        Args:
            agent_name: Name of the agent.
            turn_idx: Number of the turn, from 0.
            prompt: The agent's prompt.
            answer: The policy's answer.
            seed: The seed that it was sampled with.
        """
        # Turns are stored one after the other, each with its complete prompt.
        first = len(self._record.messages)
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
        self._record.messages += [*prompt, reply]
        self._record.tokens.append(answer.tokens or NO_TOKENS)
        self._record.contexts.append(self._cast.policies[agent_name].context)
        turn = EpisodeTurn(
            agent_name=agent_name,
            policy_name=self._cast.policies[agent_name].name,
            turn_idx=turn_idx,
            first=first,
            end=len(self._record.messages),
            reward=None,
            seed=seed,
            finish_reason=answer.finish_reason,
        )
        self._record.turns.append(turn)
        return turn

    def _with_thoughts(self, agent_name: str, prompt: list[Message]) -> list[Message]:
        """Return a prompt with the thoughts of the agent's earlier answers, which environments do not keep."""
        if self._cast.drop_reasoning or not self._thoughts:
            return prompt
        return [
            message | {"reasoning_content": thoughts[0]} if thoughts is not None else message
            for message in prompt
            for thoughts in [self._thoughts_of(agent_name, message)]
        ]

    def _thoughts_of(self, agent_name: str, message: Message) -> tuple[str, str] | None:
        content = message.get("content")
        if message.get("role") != "assistant" or not isinstance(content, str) or "reasoning_content" in message:
            return None
        return self._thoughts.get((agent_name, content))

    def _messages_for_server(self, agent_name: str, prompt: list[Message]) -> list[Message]:
        """Return a prompt for a server: images as data, thoughts under the server's own key."""
        messages = []
        for message in self._cast.pictures.sent(prompt):
            content = message.get("content")
            known = self._thoughts.get((agent_name, content)) if isinstance(content, str) else None
            thoughts = message.get("reasoning_content")
            if known is not None and thoughts == known[0]:
                message = {key: value for key, value in message.items() if key != "reasoning_content"}
                message[known[1]] = thoughts
            messages.append(message)
        return messages

    async def _request(
        self, agent: Agent, agent_name: str, turn_idx: int, prompt: list[Message]
    ) -> tuple[PolicyAnswer, int]:
        """Return the policy's answer, and the seed that it was sampled with.

        Args:
            agent: The agent, for demonstrations.
            agent_name: Name of the agent.
            turn_idx: Number of the turn, from 0.
            prompt: The agent's prompt.
        """
        policy = self._cast.policies[agent_name]
        seed = rollout_seed(self._seed, agent_name, turn_idx)
        label = f"{agent_name}, turn {turn_idx}: "
        messages = self._messages_for_server(agent_name, prompt)
        try:
            answer = await policy.answer(agent, messages, seed, self._demonstration_caller(label))
        except RequestFailedError as failure:
            self._record.calls += failure.calls
            raise _EpisodeFailedError(Failure(type=failure.type, message=f"{label}{failure.message}")) from None
        before = self._record.usage
        self._record.usage = Usage(
            prompt_tokens=before.prompt_tokens + answer.usage.prompt_tokens,
            completion_tokens=before.completion_tokens + answer.usage.completion_tokens,
        )
        self._record.calls += answer.calls
        self._record.finish_reason = answer.finish_reason
        return answer, seed

    def _demonstration_caller(self, label: str) -> Callable[[Callable[[], str]], Awaitable[str]]:
        """Return a function that runs a demonstration in a thread; its exceptions end the episode, as in `_call`."""

        async def call(demonstration: Callable[[], str]) -> str:
            def demonstrate(mark: MarkCall) -> str:
                mark("demonstration")
                return demonstration()

            return await self._call(label, demonstrate)

        return call

    async def _call(self, label: str, call: Callable[[MarkCall], ResultT]) -> ResultT:
        """Run the environment's code in a thread. Any exception ends this episode only.

        `label` is the agent and the turn, for messages.
        """
        names: list[str] = []
        try:
            result: ResultT = await self._in_thread(lambda: call(names.append))
        except (SandboxError, VerifierFailed) as failure:
            error = Failure(type=failure.type, message=f"{label}{names[-1]}: {failure}")
            raise _EpisodeFailedError(error) from failure
        except RollmillError as failure:
            raise _EpisodeFailedError(Failure(type="tool", message=f"{label}{names[-1]}: {failure}")) from failure
        except Exception as error:
            message = f"{label}{names[-1]}: {describe(error)}{_source_line(error)}"
            raise _EpisodeFailedError(Failure(type=RAISED, message=message)) from error
        return result


def _checked(step: Step) -> Step:
    """Return a step that the journal can store. Raises `TypeError` or `ValueError` for others."""
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
