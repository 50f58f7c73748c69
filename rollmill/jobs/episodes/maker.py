"""Makes episodes: an environment, agents that play in it, a journal's row."""

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
from rollmill.jobs.episodes.episode import Cast, PlayedEpisode, play
from rollmill.jobs.episodes.record import EpisodeRollout, EpisodeTurn
from rollmill.jobs.episodes.tools import VerifierPools
from rollmill.records import Problem, Verdict


class Stage(NamedTuple):
    """The environment of a run, and what makes its episodes the ones they are."""

    environment: type[Environment]
    settings: Any
    seed: int
    """Of the run."""
    metadata: Mapping[str, Any]
    """Of every row: `max_tokens`, ..."""


class EpisodeWork(NamedTuple):
    """One episode to make."""

    problem: Problem
    sample_id: int
    attempt: int


class EpisodesMaker:
    """Makes episodes, as many at a time as the engine has slots.

    What belongs to an environment blocks, so that it is called in threads; policies are asked from the event loop.
    """

    def __init__(
        self,
        stage: Stage,
        cast: Cast,
        *,
        clients: list[ChatClient],
        open_tools: Callable[[ExitStack], Tools],
        threads: int,
    ) -> None:
        """Prepare to make episodes; nothing is opened yet.

        Args:
            stage: The environment, and what makes its episodes the ones they are.
            cast: Who plays.
            clients: Of the servers that policies are asked on.
            open_tools: Opens all tools but verification; what ends them goes to the stack.
            threads: Threads for the environments' code.
        """
        self._stage = stage
        self._cast = cast
        self._clients = clients
        self._open_tools = open_tools
        self._thread_count = threads

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold connections, tools and threads; at the end give up environments under way.

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

    def work(self, run: PendingRollouts, problems: list[Problem], *, first: int | None = None) -> Iterator[EpisodeWork]:
        """Yield what a run still wants of some problems."""
        groups = ((each.instance_id, self._of_problem(each, run, first)) for each in problems)
        # Where several policies play, they are asked in turn: it is the first one's servers that work is spread over.
        return (
            self._clients[0].endpoints.in_turns(groups) if self._clients else chain.from_iterable(w for _, w in groups)
        )

    @staticmethod
    def _of_problem(problem: Problem, run: PendingRollouts, first: int | None) -> Iterator[EpisodeWork]:
        for sample_id, attempt in run.pending(problem, first):
            yield EpisodeWork(problem, sample_id, attempt)

    @property
    def stall_limit_s(self) -> float:
        """Return the limit of one request, also for what an environment does between two."""
        return max((client.request_timeout_s for client in self._clients), default=ClientConfig().request_timeout_s)

    @property
    def congested(self) -> int:
        """Return the tries so far that a server had no room for."""
        return sum(client.endpoints.congested for client in self._clients)

    async def __call__(self, work: EpisodeWork) -> CompletedRollout:
        """Make one episode; a failure on the way is the row's `error`."""
        seed = rollout_seed(self._stage.seed, work.problem.instance_id, work.sample_id, work.attempt)
        make = partial(self._stage.environment.make, work.problem, seed, self._stage.settings, self._tools)
        with ExitStack() as episode:
            cast = self._cast.in_episode(work.problem.instance_id, episode)
            played = await play(make, cast, seed=seed, in_thread=self._in_thread)
        record = self._record(work, seed, played)
        row = record.model_dump(mode="json")
        failed = record.error.message if record.error else None
        return CompletedRollout(
            work.problem.instance_id,
            work.sample_id,
            dump_line(row),
            RolloutOutcome.of_row(row),
            failed,
            known_tokens(played.tokens),
        )

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _record(self, work: EpisodeWork, seed: int, played: PlayedEpisode) -> EpisodeRollout:
        environment = self._stage.environment
        shared = _shared_context(played)
        verdict = None
        if played.success is not None:
            verdict = Verdict(
                verifier=f"{environment.name}@{environment.version}",
                status="ok",
                reward=float(played.success),
                success=played.success,
            )
        return EpisodeRollout(
            instance_id=work.problem.instance_id,
            sample_id=work.sample_id,
            seed=seed,
            messages=played.messages,
            completion=None,
            reward=verdict.reward if verdict else None,
            success=verdict.success if verdict else None,
            verdict=verdict,
            error=played.error,
            usage=played.usage,
            latency_s=round(played.seconds, 4),
            finish_reason=played.finish_reason,
            model_calls=played.calls,
            metadata={
                **self._stage.metadata,
                "attempt": work.attempt,
                **({"reasoning_dropped": True} if self._cast.drop_reasoning else {}),
            },
            env_name=environment.name,
            turns=_turns(played, {} if shared is None else shared),
            **(shared or {}),
        )


def _shared_context(played: PlayedEpisode) -> dict[str, Any] | None:
    """Return the context of all turns, for the row; None where it is not the same, and each turn has its own."""
    contexts = played.contexts
    return contexts[0] if contexts and all(context == contexts[0] for context in contexts) else None


def _turns(played: PlayedEpisode, shared: dict[str, Any]) -> list[EpisodeTurn]:
    if shared:
        return played.turns
    return [turn.model_copy(update=context) for turn, context in zip(played.turns, played.contexts, strict=True)]
