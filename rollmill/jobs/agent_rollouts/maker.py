"""Makes agent rollouts: a sandbox, an agent that plays in it, a grade for what it left, a journal's row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import replace
from typing import NamedTuple

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
from rollmill.inference.client import ChatClient, Completion
from rollmill.jobs.agent_rollouts.problems import graded_problem
from rollmill.records import Failure, Problem
from rollmill.sandboxes.sandbox import Limits, SandboxError, SandboxHost, SandboxSpec


class AgentWork(NamedTuple):
    """One attempt to make."""

    problem: GradedProblem
    sample_id: int
    attempt: int


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
        """`closing` is closed at the end: it ends the sandboxes."""
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
        self._asked: set[Future[Completion]] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Holds connections and threads; at the end attempts under way are given up, and their sandboxes end."""
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="agent")
        try:
            async with self._client:
                try:
                    yield
                finally:
                    self._stopping.set()
                    for asked in tuple(self._asked):
                        asked.cancel()
                    await asyncio.to_thread(self._closing.close)
        finally:
            await asyncio.to_thread(self._threads.shutdown)

    def work(self, run: PendingRollouts, problems: list[Problem], *, first: int | None = None) -> Iterator[AgentWork]:
        """What a run still wants of some problems."""
        for problem in problems:
            wanted = run.wanted(problem, first)
            if wanted:
                graded = graded_problem(problem)
                for sample_id, attempt in wanted:
                    yield AgentWork(graded, sample_id, attempt)

    @property
    def stall_limit_s(self) -> float:
        """Return the limit of one request; commands declare their own."""
        return self._client.request_timeout_s

    async def __call__(self, work: AgentWork) -> CompletedRollout:
        """One attempt; a failure on the way is the row's `error`."""
        return await self._loop.run_in_executor(self._threads, self._make, work)

    def _make(self, work: AgentWork) -> CompletedRollout:
        problem = work.problem
        seed = rollout_seed(self._sampling.seed, problem.instance_id, work.sample_id, work.attempt)
        played, evaluation = self._play(problem, seed)
        metadata = {"model": self._model, "attempt": work.attempt, "max_tokens": self._sampling.max_tokens}
        record = make_record(problem, played, evaluation, sample_id=work.sample_id, seed=seed, metadata=metadata)
        row = record.model_dump(mode="json")
        failed = record.error.message if record.error else None
        return CompletedRollout(problem.instance_id, work.sample_id, dump_line(row), RolloutOutcome.of_row(row), failed)

    def _play(self, problem: GradedProblem, seed: int) -> tuple[AgentRun, Evaluation | None]:
        played: AgentRun | None = None
        try:
            with closing(self._host.start(self._spec(problem))) as sandbox:
                played = play(
                    problem, sandbox=sandbox, client=self, model=self._model, settings=self._settings, seed=seed,
                    stop=self._stopping,
                )  # fmt: skip
                if played.error:
                    return played, None
                return played, self._grader.grade(problem, sandbox.id)
        except SandboxError as failure:
            error = Failure(type=failure.type, message=str(failure))
            return (replace(played, error=error) if played else unplayed(error)), None

    def complete(self, body: bytes) -> Completion:
        """One completion, for an attempt's thread. Raises as `ChatClient.complete` does."""
        asked = asyncio.run_coroutine_threadsafe(self._client.complete(body), self._loop)
        self._asked.add(asked)
        try:
            return asked.result()
        finally:
            self._asked.discard(asked)

    def _spec(self, problem: GradedProblem) -> SandboxSpec:
        return SandboxSpec(
            image=problem.image_name,
            cwd=problem.workdir or self._settings.cwd,
            env=self._settings.env,
            timeout_s=self._settings.timeout_s,
            limits=self._limits,
        )
