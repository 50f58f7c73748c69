"""Plays one episode: agents are asked in turn until it is over."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from rollmill.environments.environment import Agent, Environment, Step
from rollmill.episodes.pictures import PictureFolder
from rollmill.episodes.policies import Answer, Policy
from rollmill.episodes.record import Turn
from rollmill.errors import RollmillError
from rollmill.records import Message, RolloutError, Usage
from rollmill.rollouts.identity import rollout_seed
from rollmill.sandboxes.sandbox import SandboxError
from rollmill.serving.client import RequestFailedError
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


@dataclass
class Played:
    """What was played, up to the end or to what broke it off."""

    messages: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    success: bool | None = None
    """None where `error` is not."""
    error: RolloutError | None = None
    usage: Usage = field(default_factory=Usage)
    calls: int = 0
    finish_reason: str | None = None
    seconds: float = 0.0


class _BrokenOffError(Exception):
    def __init__(self, error: RolloutError) -> None:
        super().__init__(error.message)
        self.error = error


async def play(make: Callable[[], Environment], cast: Cast, *, seed: int, in_thread: InThread) -> Played:
    """Plays one episode. What fails on the way is `error`, with the agent, the turn and the call that failed.

    Raises what concerns the whole run: `ServingError` and `RunStoppedError` of the policies.
    """
    played = Played()
    began = time.monotonic()
    try:
        await _Episode(cast, seed, in_thread, played).play(make)
    except _BrokenOffError as broken:
        played.error = broken.error
    played.seconds = time.monotonic() - began
    return played


class _Episode:
    def __init__(self, cast: Cast, seed: int, in_thread: InThread, played: Played) -> None:
        self._cast = cast
        self._seed = seed
        self._in_thread = in_thread
        self._played = played

    async def play(self, make: Callable[[], Environment]) -> None:
        environment = await self._call("making the environment", make)
        for turn_idx in range(self._cast.max_turns):
            order: Sequence[str] = await self._call("turn_order", lambda: tuple(environment.turn_order))
            for agent_name in order:
                if await self._play_turn(environment, agent_name, turn_idx):
                    break
            else:
                continue
            break
        self._played.success = await self._call("success", lambda: _bool("success", environment.success))

    async def _play_turn(self, environment: Environment, agent_name: str, turn_idx: int) -> bool:
        """One agent's turn; whether the episode is over."""
        where = f"{agent_name}, turn {turn_idx}"
        agent = await self._call(f"{where}: agents", lambda: environment.agents[agent_name])
        shown = await self._call(f"{where}: prompt", lambda: self._cast.pictures.keep(agent.prompt()))
        answer, seed = await self._ask(agent, agent_name, turn_idx, shown)
        first = len(self._played.messages)
        said: Message = {"role": "assistant", "content": answer.text}
        if answer.reasoning is not None:
            said["reasoning"] = answer.reasoning
        self._played.messages += [*shown, said]
        turn = Turn(
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
        step = await self._call(f"{where}: act", lambda: _checked(agent.act(answer.text)))
        self._played.turns[-1] = turn.model_copy(update={"reward": step.reward, "info": dict(step.info)})
        over: bool = await self._call(f"{where}: done", lambda: _bool("done", environment.done))
        return over

    async def _ask(self, agent: Agent, agent_name: str, turn_idx: int, shown: list[Message]) -> tuple[Answer, int]:
        policy = self._cast.policies[agent_name]
        seed = rollout_seed(self._seed, agent_name, turn_idx)
        where = f"{agent_name}, turn {turn_idx}"
        try:
            answer = await policy.answer(agent, self._cast.pictures.sent(shown), seed, self._demonstrated(where))
        except RequestFailedError as failure:
            self._played.calls += failure.calls
            raise _BrokenOffError(RolloutError(type=failure.type, message=f"{where}: {failure.message}")) from None
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
            said: str = await self._call(f"{where}: demonstration", demonstration)
            return said

        return call

    async def _call(self, where: str, call: Callable[[], ResultT]) -> ResultT:
        """Calls what is the environment's. Whatever it raises ends the episode, and nothing else."""
        try:
            result: ResultT = await self._in_thread(call)
        except (SandboxError, VerifierFailed) as failure:
            raise _BrokenOffError(RolloutError(type=failure.type, message=f"{where}: {failure}")) from failure
        except RollmillError as failure:
            raise _BrokenOffError(RolloutError(type="tool", message=f"{where}: {failure}")) from failure
        except Exception as error:
            message = f"{where}: {describe(error)}{_place(error)}"
            raise _BrokenOffError(RolloutError(type=RAISED, message=message)) from error
        return result


def _checked(step: Step) -> Step:
    """Raises `TypeError` or `ValueError` for what cannot stand in a journal."""
    reward, info = step
    if isinstance(reward, bool) or not isinstance(reward, float | int) or not math.isfinite(reward):
        raise ValueError(f"a step's reward is {reward!r}: it must be a finite number")
    told = orjson.loads(orjson.dumps(dict(info)))
    return Step(float(reward), told)


def _bool(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: it must be True or False")
    return value


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
