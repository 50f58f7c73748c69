"""Generates agent rollouts: starts a sandbox, runs an agent in it, grades the result, and returns a journal row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import replace
from typing import Any, NamedTuple

from rollmill.agents.model import BlockingClient
from rollmill.agents.playing import AgentRun, make_failed_run, play
from rollmill.agents.record import make_record
from rollmill.agents.settings import AgentSettings
from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.identity import rollout_seed
from rollmill.generation.sampling import Sampling
from rollmill.generation.session import PendingRollouts
from rollmill.generation.tally import RolloutOutcome
from rollmill.grading.evaluation import Evaluation, Grader
from rollmill.grading.grader import LocalGrader
from rollmill.grading.problem import GradedProblem
from rollmill.inference.answers import Completion
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import RoutedConversation
from rollmill.jobs.agent_rollouts.problems import graded_problem
from rollmill.records import Failure, Problem
from rollmill.sandboxes.sandbox import Limits, SandboxError, SandboxHost, SandboxSpec


class AgentWork(NamedTuple):
    """One attempt to generate."""

    problem: GradedProblem
    sample_id: int
    attempt: int


class _AttemptClient(NamedTuple):
    """Client of one attempt, whose requests are one conversation and go to one server."""

    request: Callable[[bytes, RoutedConversation], Completion]
    conversation: RoutedConversation

    def complete(self, body: bytes) -> Completion:
        """Request one completion. Raises as `ChatClient.complete` does."""
        return self.request(body, self.conversation)


class AgentRolloutGenerator:
    """Generates attempts for an `Engine`, as many at a time as `workers`.

    Agents, sandboxes and grading block, so each attempt has a thread; requests to the model are sent from the event
    loop.
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
        """Create a generator; `opened` opens connections and threads.

        Args:
            client: Client of the model's servers.
            host: Starts sandboxes.
            grader: Grades attempts.
            settings: The agent's configuration.
            model: The model's name on its servers.
            sampling: Sampling parameters of the model.
            limits: Limits of every sandbox.
            workers: Attempts at a time.
            closing: Stack that ends the sandboxes, closed at the end.
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
        """Open connections and threads for the time of a block; at its end cancel attempts, and end their sandboxes."""
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

    def work(self, run: PendingRollouts, problems: list[Problem], *, limit: int | None = None) -> Iterator[AgentWork]:
        """Yield the pending attempts at some problems; with `limit`, only of their first `limit` samples."""
        groups = ((problem.instance_id, self._of_problem(problem, run, limit)) for problem in problems)
        return self._client.endpoints.in_turns(groups)

    @staticmethod
    def _of_problem(problem: Problem, run: PendingRollouts, limit: int | None) -> Iterator[AgentWork]:
        pending = run.pending(problem, limit)
        if pending:
            graded = graded_problem(problem)
            for sample_id, attempt in pending:
                yield AgentWork(graded, sample_id, attempt)

    @property
    def stall_limit_s(self) -> float:
        """Seconds without progress that count as a stall: those of one request; commands declare their own."""
        return self._client.request_timeout_s

    @property
    def congested(self) -> int:
        """Number of requests so far that a server refused for lack of capacity."""
        return self._client.endpoints.congested

    async def __call__(self, work: AgentWork) -> CompletedRollout:
        """Generate one attempt; an error in it becomes the row's `error`."""
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
        failure = record.error.message if record.error else None
        return CompletedRollout(
            problem.instance_id, work.sample_id, dump_line(row), RolloutOutcome.of_row(row), failure, played.tokens
        )

    def _play(self, problem: GradedProblem, seed: int, client: BlockingClient) -> tuple[AgentRun, Evaluation | None]:
        """Run the agent in a sandbox, and grade its result there; None in place of a grade after an error."""
        played: AgentRun | None = None
        try:
            with closing(self._host.start(self._spec(problem))) as sandbox:
                if isinstance(self._grader, LocalGrader):  # before the agent's work, which could not be graded
                    self._grader.check(problem, sandbox)
                played = play(
                    problem, sandbox=sandbox, client=client, model=self._model, settings=self._settings, seed=seed,
                    stop=self._stopping,
                )  # fmt: skip
                if played.error:
                    return played, None
                return played, self._grader.grade(problem, sandbox.id)
        except SandboxError as failure:
            error = Failure(type=failure.type, message=str(failure))
            return (replace(played, error=error) if played else make_failed_run(error)), None

    def complete(self, body: bytes, conversation: RoutedConversation) -> Completion:
        """Request one completion, from an attempt's thread. Raises as `ChatClient.complete` does."""
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
