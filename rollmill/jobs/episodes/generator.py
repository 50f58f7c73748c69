"""Generates episodes: makes an environment, lets agents act in it, and returns a journal row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from rollmill.environments.environment import Environment
from rollmill.environments.tools import Tools
from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.identity import rollout_seed
from rollmill.generation.session import PendingRollouts
from rollmill.generation.tally import RolloutOutcome
from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.sampled_tokens import known_tokens
from rollmill.jobs.episodes.episode import EpisodePolicies, EpisodeRecord, run_episode
from rollmill.jobs.episodes.record import EpisodeRollout, EpisodeTurn
from rollmill.jobs.episodes.tools import VerifierPools
from rollmill.records import Problem, Verdict


class EpisodeSetup(NamedTuple):
    """The environment of a run with its settings."""

    environment: type[Environment]
    settings: Any
    """An instance of the environment's `Settings`."""
    seed: int
    """Seed of the run."""
    metadata: Mapping[str, Any]
    """Metadata of every row: `max_tokens`, ..."""


class EpisodeWork(NamedTuple):
    """One episode to generate."""

    problem: Problem
    sample_id: int
    attempt: int


class EpisodeGenerator:
    """Generates episodes, as many at a time as the engine has slots.

    Environments' code blocks, so it is called in threads; requests to policies are sent from the event loop.
    """

    def __init__(
        self,
        setup: EpisodeSetup,
        policies: EpisodePolicies,
        *,
        clients: list[ChatClient],
        open_tools: Callable[[ExitStack], Tools],
        threads: int,
    ) -> None:
        """Create a generator; `opened` opens connections and tools.

        Args:
            setup: The environment with its settings.
            policies: The policies of the agents.
            clients: Clients of the policies' servers.
            open_tools: Opens all tools except verification, and registers their closing in the stack.
            threads: Number of threads for the environments' code.
        """
        self._setup = setup
        self._policies = policies
        self._clients = clients
        self._open_tools = open_tools
        self._thread_count = threads

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open connections, tools and threads for the time of a block; at its end abandon running episodes.

        Raises `InputError` where a tool cannot be used.
        """
        self._threads = ThreadPoolExecutor(self._thread_count, thread_name_prefix="environment")
        try:
            async with AsyncExitStack() as stack:
                for client in self._clients:
                    await stack.enter_async_context(client)
                verifiers = await stack.enter_async_context(VerifierPools())
                closing = ExitStack()
                stack.push_async_callback(asyncio.to_thread, closing.close)
                tools = await asyncio.to_thread(self._open_tools, closing)
                self._tools = tools._replace(verification=verifiers)
                yield
        finally:
            await asyncio.to_thread(self._threads.shutdown)

    def work(self, run: PendingRollouts, problems: list[Problem], *, limit: int | None = None) -> Iterator[EpisodeWork]:
        """Yield the pending episodes of some problems; with `limit`, only of their first `limit` samples."""
        groups = ((problem.instance_id, self._of_problem(problem, run, limit)) for problem in problems)
        if not self._clients:
            return chain.from_iterable(work for _, work in groups)
        # With several policies, work is balanced over the servers of the first.
        return self._clients[0].endpoints.in_turns(groups)

    @staticmethod
    def _of_problem(problem: Problem, run: PendingRollouts, limit: int | None) -> Iterator[EpisodeWork]:
        for sample_id, attempt in run.pending(problem, limit):
            yield EpisodeWork(problem, sample_id, attempt)

    @property
    def stall_limit_s(self) -> float:
        """Seconds without progress that count as a stall: those of one request, also for environments' code."""
        return max((client.request_timeout_s for client in self._clients), default=ClientConfig().request_timeout_s)

    @property
    def congested(self) -> int:
        """Number of requests so far that a server refused for lack of capacity."""
        return sum(client.endpoints.congested for client in self._clients)

    async def __call__(self, work: EpisodeWork) -> CompletedRollout:
        """Generate one episode; an error in it becomes the row's `error`."""
        seed = rollout_seed(self._setup.seed, work.problem.instance_id, work.sample_id, work.attempt)
        make = partial(self._setup.environment.make, work.problem, seed, self._setup.settings, self._tools)
        with ExitStack() as stack:
            policies = self._policies.in_episode(work.problem.instance_id, stack)
            episode = await run_episode(make, policies, seed=seed, in_thread=self._in_thread)
        record = self._record(work, seed, episode)
        row = record.model_dump(mode="json")
        failure = record.error.message if record.error else None
        return CompletedRollout(
            work.problem.instance_id,
            work.sample_id,
            dump_line(row),
            RolloutOutcome.of_row(row),
            failure,
            known_tokens(episode.tokens),
        )

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _record(self, work: EpisodeWork, seed: int, episode: EpisodeRecord) -> EpisodeRollout:
        environment = self._setup.environment
        shared = _shared_context(episode)
        verdict = None
        if episode.success is not None:
            verdict = Verdict(
                verifier=f"{environment.name}@{environment.version}",
                status="ok",
                reward=float(episode.success),
                success=episode.success,
            )
        return EpisodeRollout(
            instance_id=work.problem.instance_id,
            sample_id=work.sample_id,
            seed=seed,
            messages=episode.messages,
            completion=None,
            reward=verdict.reward if verdict else None,
            success=verdict.success if verdict else None,
            verdict=verdict,
            error=episode.error,
            usage=episode.usage,
            latency_s=round(episode.seconds, 4),
            finish_reason=episode.finish_reason,
            model_calls=episode.calls,
            metadata={
                **self._setup.metadata,
                "attempt": work.attempt,
                **({"reasoning_dropped": True} if self._policies.drop_reasoning else {}),
            },
            env_name=environment.name,
            turns=_turns(episode, {} if shared is None else shared),
            **(shared or {}),
        )


def _shared_context(episode: EpisodeRecord) -> dict[str, Any] | None:
    """Return the chat template inputs that all turns share, for the row; None where turns differ."""
    contexts = episode.contexts
    return contexts[0] if contexts and all(context == contexts[0] for context in contexts) else None


def _turns(episode: EpisodeRecord, shared: dict[str, Any]) -> list[EpisodeTurn]:
    if shared:
        return episode.turns
    return [turn.model_copy(update=context) for turn, context in zip(episode.turns, episode.contexts, strict=True)]
