"""Single-turn rollouts: one prompt, one completion, one verdict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import orjson

from rollmill.errors import InputError
from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.identity import rollout_seed
from rollmill.generation.sampling import Sampling
from rollmill.generation.session import PendingRollouts
from rollmill.generation.tally import RolloutOutcome
from rollmill.inference.client import ChatClient, Completion, RequestFailedError
from rollmill.problems import Prompting, build_messages, to_openai
from rollmill.records import SCHEMA_VERSION, Failure, Problem, Usage, Verdict
from rollmill.verifiers import VerifierFailed, VerifierPool


class PreparedProblem(NamedTuple):
    """A problem with its prompt rendered once for all its rollouts."""

    problem: Problem
    messages: orjson.Fragment
    """For the journal: images as paths."""
    body: bytes
    """The request's JSON but for the seed and the closing brace: images as base64."""


class ChatWork(NamedTuple):
    """One rollout to make."""

    prepared: PreparedProblem
    sample_id: int
    attempt: int


class ChatRollouts:
    """Makes single-turn rollouts with a client and a verifier: what an `Engine` calls."""

    def __init__(
        self, client: ChatClient, verifiers: VerifierPool, *, model: str, sampling: Sampling, prompting: Prompting
    ) -> None:
        self._client = client
        self._verifiers = verifiers
        self._model = model
        self._sampling = sampling
        self._prompting = prompting

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Holds the client's connections and the verifiers' processes."""
        async with self._verifiers, self._client:
            yield

    def work(self, run: PendingRollouts, problems: list[Problem], *, first: int | None = None) -> Iterator[ChatWork]:
        """What a run still wants of some problems, each prepared only when its turn comes."""
        for problem in problems:
            wanted = run.wanted(problem, first)
            if wanted:
                prepared = self.prepare(problem, run)
                for sample_id, attempt in wanted:
                    yield ChatWork(prepared, sample_id, attempt)

    def prepare(self, problem: Problem, run: PendingRollouts) -> PreparedProblem:
        """Renders the prompt and reads the images. Raises `InputError` where a template's column is missing."""
        messages = build_messages(problem, self._prompting)
        try:
            journaled = orjson.dumps(messages)
        except TypeError as error:
            raise InputError(f"the prompt of {problem.instance_id} cannot be sent as JSON: {error}") from error
        sent = to_openai(messages, run.directory) if problem.images else messages
        body = {
            "model": self._model,
            "messages": sent,
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "max_tokens": self._sampling.max_tokens,
        }
        return PreparedProblem(problem, orjson.Fragment(journaled), orjson.dumps(body)[:-1])

    @property
    def stall_limit_s(self) -> float:
        """Return the limit of one request."""
        return self._client.request_timeout_s

    async def __call__(self, work: ChatWork) -> CompletedRollout:
        """Asks, verifies, and makes the journal's row; a failure on the way is the row's `error`."""
        problem = work.prepared.problem
        seed = rollout_seed(self._sampling.seed, problem.instance_id, work.sample_id, work.attempt)
        completion: Completion | None = None
        verdict: Verdict | None = None
        error: Failure | None = None
        calls = 0
        try:
            completion = await self._client.complete(b'%s,"seed":%d}' % (work.prepared.body, seed))
            calls = completion.calls
            verdict = await self._verifiers.verify(problem, completion.text)
        except RequestFailedError as failure:
            error, calls = Failure(type=failure.type, message=failure.message), failure.calls
        except VerifierFailed as failure:
            error = Failure(type=failure.type, message=failure.message)
        return self._made(work, seed, completion, verdict, error, calls)

    def _made(
        self,
        work: ChatWork,
        seed: int,
        completion: Completion | None,
        verdict: Verdict | None,
        error: Failure | None,
        calls: int,
    ) -> CompletedRollout:
        metadata = {"model": self._model, "attempt": work.attempt, "max_tokens": self._sampling.max_tokens}
        if completion is not None and completion.reasoning is not None:
            metadata["reasoning"] = completion.reasoning
        usage = completion.usage if completion else Usage()
        row = {
            "schema_version": SCHEMA_VERSION,
            "instance_id": work.prepared.problem.instance_id,
            "sample_id": work.sample_id,
            "seed": seed,
            "messages": work.prepared.messages,
            "completion": completion.text if completion else None,
            "reward": verdict.reward if verdict else None,
            "success": verdict.success if verdict else None,
            "verdict": verdict.model_dump() if verdict else None,
            "error": error.__dict__ if error else None,
            "usage": usage.__dict__,
            "latency_s": round(completion.latency_s, 4) if completion else None,
            "finish_reason": completion.finish_reason if completion else None,
            "model_calls": calls,
            "metadata": metadata,
        }
        failure = error.message if error else None
        return CompletedRollout(
            work.prepared.problem.instance_id, work.sample_id, dump_line(row), RolloutOutcome.of_row(row), failure
        )
