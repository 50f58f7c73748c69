"""Makes agent rollouts: a sandbox, an agent that plays in it, a grade for what it left, a journal's row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import replace
from typing import Any, NamedTuple

from rollmill.agents.model import BlockingClient
from rollmill.agents.playing import AgentRun, play, unplayed
from rollmill.agents.record import make_record
from rollmill.agents.settings import AgentSettings
from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.identity import rollout_seed
from rollmill.generation.sampling import Sampling
from rollmill.generation.session import PendingRollouts
from rollmill.generation.tally import RolloutOutcome
from rollmill.grading.evaluation import Evaluation, Grader
from rollmill.grading.problem import GradedProblem
from rollmill.inference.answers import Completion
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import RoutedConversation
from rollmill.jobs.agent_rollouts.problems import graded_problem
from rollmill.records import Failure, Problem
from rollmill.sandboxes.sandbox import Limits, SandboxError, SandboxHost, SandboxSpec


class AgentWork(NamedTuple):
    """One attempt to make."""

    problem: GradedProblem
    sample_id: int
    attempt: int


class _AttemptClient(NamedTuple):
    """Completes one attempt's requests, which are a conversation."""

    request: Callable[[bytes, RoutedConversation], Completion]
    conversation: RoutedConversation

    def complete(self, body: bytes) -> Completion:
        """Request one completion. Raises as `ChatClient.complete` does."""
        return self.request(body, self.conversation)


class AgentRolloutsMaker:
    """Makes attempts, as many at a time as there are workers; what an `Engine` calls.

    Agents, sandboxes and grading block, so that each attempt has a thread; the model is asked from the event loop.
    """

    def __init__(
        self,
        client: ChatClient,
        host: SandboxHost,
        grader: Grader,
        *,
        settings: AgentSettings,
        model: str,
        sampling: Sampling,
        limits: Limits,
        workers: int,
        closing: ExitStack,
    ) -> None:
        """Prepare to make attempts; nothing is opened yet.

        Args:
            client: Completes the agents' requests.
            host: Opens sandboxes.
            grader: Grades attempts.
            settings: The agent's.
            model: The model's name on its server.
            sampling: How the model samples.
            limits: Of every sandbox.
            workers: Attempts at a time.
            closing: What is closed at the end: it ends the sandboxes.
        """
        self._client = client
        self._host = host
        self._grader = grader
        self._settings = settings
        self._model = model
        self._sampling = sampling
        self._limits = limits
        self._workers = workers
        self._closing = closing
        self._stopping = threading.Event()
        self._requests: set[Future[Completion]] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold connections and threads; at the end cancel attempts under way, and end their sandboxes."""
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="agent")
        try:
            async with self._client:
                try:
                    yield
                finally:
                    self._stopping.set()
                    for request in tuple(self._requests):
                        request.cancel()
                    await asyncio.to_thread(self._closing.close)
        finally:
            await asyncio.to_thread(self._threads.shutdown)

    def work(self, run: PendingRollouts, problems: list[Problem], *, first: int | None = None) -> Iterator[AgentWork]:
        """Yield what a run still wants of some problems."""
        groups = ((each.instance_id, self._of_problem(each, run, first)) for each in problems)
        return self._client.endpoints.in_turns(groups)

    @staticmethod
    def _of_problem(problem: Problem, run: PendingRollouts, first: int | None) -> Iterator[AgentWork]:
        wanted = run.pending(problem, first)
        if wanted:
            graded = graded_problem(problem)
            for sample_id, attempt in wanted:
                yield AgentWork(graded, sample_id, attempt)

    @property
    def stall_limit_s(self) -> float:
        """Return the limit of one request; commands declare their own."""
        return self._client.request_timeout_s

    @property
    def congested(self) -> int:
        """Return the tries so far that a server had no room for."""
        return self._client.endpoints.congested

    async def __call__(self, work: AgentWork) -> CompletedRollout:
        """Make one attempt; a failure on the way is the row's `error`."""
        with self._client.endpoints.conversation(work.problem.instance_id) as conversation:
            client = _AttemptClient(self.complete, conversation)
            return await self._loop.run_in_executor(self._threads, self._make, work, client)

    def _make(self, work: AgentWork, client: BlockingClient) -> CompletedRollout:
        problem = work.problem
        seed = rollout_seed(self._sampling.seed, problem.instance_id, work.sample_id, work.attempt)
        played, evaluation = self._play(problem, seed, client)
        metadata: dict[str, Any] = {
            "model": self._model,
            "attempt": work.attempt,
            "max_tokens": self._sampling.max_tokens,
        }
        if self._settings.drop_reasoning:
            metadata["reasoning_dropped"] = True
        record = make_record(problem, played, evaluation, sample_id=work.sample_id, seed=seed, metadata=metadata)
        row = record.model_dump(mode="json")
        failed = record.error.message if record.error else None
        return CompletedRollout(
            problem.instance_id, work.sample_id, dump_line(row), RolloutOutcome.of_row(row), failed, played.tokens
        )

    def _play(self, problem: GradedProblem, seed: int, client: BlockingClient) -> tuple[AgentRun, Evaluation | None]:
        played: AgentRun | None = None
        try:
            with closing(self._host.start(self._spec(problem))) as sandbox:
                played = play(
                    problem, sandbox=sandbox, client=client, model=self._model, settings=self._settings, seed=seed,
                    stop=self._stopping,
                )  # fmt: skip
                if played.error:
                    return played, None
                return played, self._grader.grade(problem, sandbox.id)
        except SandboxError as failure:
            error = Failure(type=failure.type, message=str(failure))
            return (replace(played, error=error) if played else unplayed(error)), None

    def complete(self, body: bytes, conversation: RoutedConversation) -> Completion:
        """Request one completion, for an attempt's thread. Raises as `ChatClient.complete` does."""
        request = asyncio.run_coroutine_threadsafe(self._client.complete(body, conversation), self._loop)
        self._requests.add(request)
        try:
            return request.result()
        finally:
            self._requests.discard(request)

    def _spec(self, problem: GradedProblem) -> SandboxSpec:
        return SandboxSpec(
            image=problem.image_name,
            cwd=problem.workdir or self._settings.cwd,
            env=self._settings.env,
            timeout_s=self._settings.timeout_s,
            limits=self._limits,
        )
