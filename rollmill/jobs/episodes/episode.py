"""Runs one episode: agents act in turn until the environment is done.

In a turn of the episode (`turn_idx`, `max_turns`) every agent of the environment's order acts once; an `EpisodeTurn` of
the record is one agent's part of it.
"""

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
from rollmill.jobs.episodes.images import ImageFolder
from rollmill.jobs.episodes.policies import Policy, PolicyAnswer
from rollmill.jobs.episodes.record import EpisodeTurn
from rollmill.records import Failure, Message, Usage
from rollmill.sandboxes.sandbox import SandboxError
from rollmill.verifiers.failure import VerifierFailed, describe

ResultT = TypeVar("ResultT")

RAISED = "environment_raised"
"""The error type of an episode that ended with an exception of the environment's own code."""

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs blocking code, such as an environment's, in a thread."""


class EpisodePolicies(NamedTuple):
    """The policies of an episode's agents, and the settings that all of them share."""

    policies: Mapping[str, Policy]
    """The policy of each agent, by the agent's name."""
    max_turns: int
    """Turns of the episode after which it ends in any case."""
    images: ImageFolder
    """Stores the images that prompts show."""
    drop_reasoning: bool = False
    """Leave the reasoning of an agent's earlier answers out of its prompts."""

    def in_episode(self, group: str, stack: ExitStack) -> EpisodePolicies:
        """Return the policies for one episode of the problem `group`, until the stack ends; see `Policy.in_episode`."""
        # One policy may act for several agents: it is entered once, so that all of them share a conversation's server.
        policies = {policy.name: stack.enter_context(policy.in_episode(group)) for policy in self.policies.values()}
        return self._replace(policies={agent: policies[policy.name] for agent, policy in self.policies.items()})


@dataclass
class EpisodeRecord:
    """Record of an episode, complete or up to an error."""

    messages: list[Message] = field(default_factory=list)
    """Every turn's whole prompt and its answer, concatenated; `EpisodeTurn.first` and `end` delimit them."""
    turns: list[EpisodeTurn] = field(default_factory=list)
    contexts: list[dict[str, Any]] = field(default_factory=list)
    """The chat template's inputs of each turn, besides the messages."""
    success: bool | None = None
    """None where the episode ended with an error."""
    error: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    tokens: list[SampledTokens] = field(default_factory=list)
    """Tokens of each turn's answer; empty where they are not known."""
    calls: int = 0
    """Requests sent, retries included."""
    finish_reason: str | None = None
    """Of the last answer."""
    seconds: float = 0.0


class _Reasoning(NamedTuple):
    """Reasoning of one answer, as the server returned it."""

    text: str
    key: str
    """The message's key for it on that server."""


class _EpisodeFailedError(Exception):
    def __init__(self, error: Failure) -> None:
        super().__init__(error.message)
        self.error = error


async def run_episode(
    make: Callable[[], Environment], policies: EpisodePolicies, *, seed: int, in_thread: InThread
) -> EpisodeRecord:
    """Run one episode. A failure becomes `error`, whose message has the agent, the turn and the call that failed.

    Raises errors of the whole run: `ServingError` and `RunStoppedError` of the policies.

    Args:
        make: Makes the environment, in a thread.
        policies: The policies of the agents.
        seed: Seed of the rollout.
        in_thread: Runs a function in a thread of the environments.
    """
    record = EpisodeRecord()
    begin = time.monotonic()
    try:
        await _Episode(policies, seed, in_thread, record).run(make)
    except _EpisodeFailedError as failed:
        record.error = failed.error
    record.seconds = time.monotonic() - begin
    return record


SetStep = Callable[[str], None]
"""Names the step that runs next, in a thread: the message of an exception in it begins with this name."""


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
        policies: The policies of the agents.
        seed: Seed of the rollout.
        in_thread: Runs a function in a thread of the environments.
        record: Gets all that happens.
    """

    def __init__(self, policies: EpisodePolicies, seed: int, in_thread: InThread, record: EpisodeRecord) -> None:
        self._policies = policies
        self._seed = seed
        self._in_thread = in_thread
        self._record = record
        self._reasoning: dict[tuple[str, str], _Reasoning] = {}
        """(agent, text of one of its answers) -> the answer's reasoning. Environments keep an answer's text only: of
        answers with the same text, the latest one's reasoning counts."""

    async def run(self, make: Callable[[], Environment]) -> None:
        """Make the environment, and run the episode to its end."""

        def begin(set_step: SetStep) -> tuple[Environment, Sequence[str]]:
            set_step("making the environment")
            environment = make()
            set_step("turn_order")
            return environment, _order(environment)

        environment, order = await self._call("", begin)
        for turn_idx in range(self._policies.max_turns):
            for position, agent_name in enumerate(order, start=1):
                last = position == len(order)
                final = last and turn_idx + 1 == self._policies.max_turns
                result = await self._run_turn(environment, agent_name, turn_idx, last=last, final=final)
                if result.success is not None:
                    self._record.success = result.success
                    return
            order = result.order  # the last agent's result has it

    async def _run_turn(
        self, environment: Environment, agent_name: str, turn_idx: int, *, last: bool, final: bool
    ) -> _TurnResult:
        """Run one agent's part of a turn.

        Environment code runs in threads; to save switches, all of it is in one call before the answer and one after it.

        Args:
            environment: The environment, which is used in threads only.
            agent_name: Name of the agent.
            turn_idx: Index of the episode's turn, from 0.
            last: Whether the agent is the last of the turn.
            final: Whether the episode ends with this turn in any case.
        """
        label = f"{agent_name}, turn {turn_idx}: "

        def show(set_step: SetStep) -> tuple[Agent, list[Message]]:
            set_step("agents")
            agent = environment.agents[agent_name]
            set_step("prompt")
            return agent, self._with_reasoning(agent_name, self._policies.images.store(agent.prompt()))

        agent, prompt = await self._call(label, show)
        answer, seed = await self._request(agent, agent_name, turn_idx, prompt)
        turn = self._record_answer(agent_name, turn_idx, prompt, answer, seed)

        def act(set_step: SetStep) -> _TurnResult:
            set_step("act")
            step = _checked(agent.act(answer.text))
            set_step("done")
            is_over = _bool("done", environment.done) or final
            set_step("success" if is_over else "turn_order")
            success = _bool("success", environment.success) if is_over else None
            return _TurnResult(step, _order(environment) if last and not is_over else (), success)

        result = await self._call(label, act)
        info = dict(result.step.info)
        self._record.turns[-1] = turn.model_copy(update={"reward": result.step.reward, "info": info})
        return result

    def _record_answer(
        self, agent_name: str, turn_idx: int, prompt: list[Message], answer: PolicyAnswer, seed: int
    ) -> EpisodeTurn:
        """Record prompt and answer, so that the answer is in the record even if `act` raises.

        Args:
            agent_name: Name of the agent.
            turn_idx: Index of the episode's turn, from 0.
            prompt: The agent's prompt.
            answer: The policy's answer.
            seed: The seed that it was sampled with.
        """
        # Turns are stored one after the other, each with its complete prompt.
        first = len(self._record.messages)
        reply: Message = {"role": "assistant", "content": answer.text}
        if answer.reasoning is not None:
            reply["reasoning_content"] = answer.reasoning
            self._reasoning[agent_name, answer.text] = _Reasoning(answer.reasoning, answer.reasoning_key)
        if answer.tool_calls:
            reply["tool_calls"] = [call.to_openai() for call in answer.tool_calls]
        if answer.finish_reason is not None:
            reply["finish_reason"] = answer.finish_reason
        if answer.stop_text is not None:
            reply["stop_text"] = answer.stop_text
        self._record.messages += [*prompt, reply]
        self._record.tokens.append(answer.tokens or NO_TOKENS)
        self._record.contexts.append(self._policies.policies[agent_name].context)
        turn = EpisodeTurn(
            agent_name=agent_name,
            policy_name=self._policies.policies[agent_name].name,
            turn_idx=turn_idx,
            first=first,
            end=len(self._record.messages),
            reward=None,
            seed=seed,
            finish_reason=answer.finish_reason,
        )
        self._record.turns.append(turn)
        return turn

    def _with_reasoning(self, agent_name: str, prompt: list[Message]) -> list[Message]:
        """Return a prompt with the reasoning of the agent's earlier answers, which environments do not keep."""
        if self._policies.drop_reasoning or not self._reasoning:
            return prompt
        return [self._with_own_reasoning(agent_name, message) for message in prompt]

    def _with_own_reasoning(self, agent_name: str, message: Message) -> Message:
        if message.get("role") != "assistant" or "reasoning_content" in message:
            return message
        reasoning = self._reasoning_of(agent_name, message)
        return message if reasoning is None else message | {"reasoning_content": reasoning.text}

    def _reasoning_of(self, agent_name: str, message: Message) -> _Reasoning | None:
        content = message.get("content")
        return self._reasoning.get((agent_name, content)) if isinstance(content, str) else None

    def _messages_for_server(self, agent_name: str, prompt: list[Message]) -> list[Message]:
        """Return a prompt for a server: images as data, reasoning under the server's own key."""
        messages = []
        for message in self._policies.images.to_openai(prompt):
            reasoning = self._reasoning_of(agent_name, message)
            # Reasoning that the environment itself has put into the message stays under its key.
            if reasoning is not None and message.get("reasoning_content") == reasoning.text:
                message = {key: value for key, value in message.items() if key != "reasoning_content"}
                message[reasoning.key] = reasoning.text
            messages.append(message)
        return messages

    async def _request(
        self, agent: Agent, agent_name: str, turn_idx: int, prompt: list[Message]
    ) -> tuple[PolicyAnswer, int]:
        """Return the policy's answer, and the seed that it was sampled with.

        Args:
            agent: The agent, whose methods `oracle` and `random` a `DemonstrationPolicy` calls.
            agent_name: Name of the agent.
            turn_idx: Index of the episode's turn, from 0.
            prompt: The agent's prompt.
        """
        policy = self._policies.policies[agent_name]
        # Derived as a rollout's seed is from the run's: from the episode's seed, the agent and the turn.
        seed = rollout_seed(self._seed, agent_name, turn_idx)
        label = f"{agent_name}, turn {turn_idx}: "
        messages = self._messages_for_server(agent_name, prompt)
        try:
            answer = await policy.answer(agent, messages, seed, self._demonstration_caller(label))
        except RequestFailedError as failure:
            self._record.calls += failure.calls
            # `from None`: the message says all; the client's own traceback would only hide it in logs.
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
        """Return the function with which a policy runs an agent's demonstration in a thread; failures as in `_call`."""

        async def call(demonstration: Callable[[], str]) -> str:
            def demonstrate(set_step: SetStep) -> str:
                set_step("demonstration")
                return demonstration()

            return await self._call(label, demonstrate)

        return call

    async def _call(self, label: str, call: Callable[[SetStep], ResultT]) -> ResultT:
        """Run code of the environment, or of a demonstration, in a thread. An exception ends this episode only.

        `label` is the agent and the turn, for messages.
        """
        steps: list[str] = []
        try:
            result: ResultT = await self._in_thread(lambda: call(steps.append))
        except (SandboxError, VerifierFailed) as failure:
            error = Failure(type=failure.type, message=f"{label}{steps[-1]}: {failure}")
            raise _EpisodeFailedError(error) from failure
        except RollmillError as failure:  # of another tool of the environment, such as its search
            raise _EpisodeFailedError(Failure(type="tool", message=f"{label}{steps[-1]}: {failure}")) from failure
        except Exception as error:
            message = f"{label}{steps[-1]}: {describe(error)}{_source_line(error)}"
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
