"""Single-turn rollouts: one prompt, one completion, one verdict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson

from rollmill.errors import InputError
from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.identity import rollout_seed
from rollmill.generation.sampling import Sampling, request_context, stop_texts
from rollmill.generation.session import PendingRollouts
from rollmill.generation.tally import RolloutOutcome
from rollmill.generation.verification import no_text_reason, verify_completion
from rollmill.inference.answers import Completion
from rollmill.inference.client import ChatClient, RequestFailedError
from rollmill.problems import Prompting, build_messages, to_openai
from rollmill.records import SCHEMA_VERSION, Failure, Problem, Usage, Verdict
from rollmill.verifiers import CompletionJudge, VerifierFailed

_MOST_OF_REFUSAL = 2000


class PreparedProblem(NamedTuple):
    """A problem with its prompt rendered once for all its rollouts."""

    problem: Problem
    messages: orjson.Fragment
    """The prompt as JSON for the journal, where images are paths."""
    body: bytes
    """The request's JSON without the seed and the closing brace; images are base64."""


class ChatWork(NamedTuple):
    """One rollout to make."""

    prepared: PreparedProblem
    sample_id: int
    attempt: int


class ChatRollouts:
    """A `RolloutGenerator` of single-turn rollouts: requests a completion, then verifies it.

    Args:
        client: Sends the requests, to one or more servers.
        verifiers: Judges the completions.
        model: The model's name in requests, and in the rows' metadata.
        sampling: Sampling parameters of every request; each rollout's seed is derived from theirs.
        prompting: Prompt template, system prompt and few-shot examples.
    """

    def __init__(
        self, client: ChatClient, verifiers: CompletionJudge, *, model: str, sampling: Sampling, prompting: Prompting
    ) -> None:
        self._client = client
        self._verifiers = verifiers
        self._model = model
        self._sampling = sampling
        self._prompting = prompting
        self._context = request_context(sampling.request_fields())
        self._stops = stop_texts(sampling.request_fields())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open the client's connections and the verifiers' processes; close them at the end of the block."""
        async with self._verifiers, self._client:
            yield

    def work(self, run: PendingRollouts, problems: list[Problem], *, limit: int | None = None) -> Iterator[ChatWork]:
        """Yield the pending rollouts of some problems, interleaved so that each server's prefix cache is used.

        Prompts are rendered lazily, when the first rollout of their problem is taken.
        """
        groups = ((problem.instance_id, self._problem_work(problem, run, limit)) for problem in problems)
        return self._client.endpoints.in_turns(groups)

    def _problem_work(self, problem: Problem, run: PendingRollouts, limit: int | None) -> Iterator[ChatWork]:
        pending = run.pending(problem, limit)
        if pending:
            prepared = self.prepare(problem, run)
            for sample_id, attempt in pending:
                yield ChatWork(prepared, sample_id, attempt)

    def prepare(self, problem: Problem, run: PendingRollouts) -> PreparedProblem:
        """Render the prompt and encode the images. Raises `InputError` where a template's column is missing."""
        messages = build_messages(problem, self._prompting)
        try:
            journaled = orjson.dumps(messages)
        except TypeError as error:
            raise InputError(f"the prompt of {problem.instance_id} cannot be sent as JSON: {error}") from error
        sent = to_openai(messages, run.directory) if problem.images else messages
        body = {
            "model": self._model,
            "messages": sent,
            **self._sampling.request_fields(),
        }
        # Without the closing brace: each rollout appends its seed, so that images are encoded once per problem.
        return PreparedProblem(problem, orjson.Fragment(journaled), orjson.dumps(body)[:-1])

    @property
    def stall_limit_s(self) -> float:
        """Return the timeout of one request, in seconds."""
        return self._client.request_timeout_s

    @property
    def congested(self) -> int:
        """Return how many requests so far were refused because a server was at capacity."""
        return self._client.endpoints.congested

    async def __call__(self, work: ChatWork) -> CompletedRollout:
        """Request a completion, verify it, and build the journal's row; a failure becomes the row's `error`.

        See `RolloutGenerator`.
        """
        problem = work.prepared.problem
        seed = rollout_seed(self._sampling.seed, problem.instance_id, work.sample_id, work.attempt)
        completion: Completion | None = None
        verdict: Verdict | None = None
        error: Failure | None = None
        calls = 0
        try:
            body = b'%s,"seed":%d}' % (work.prepared.body, seed)
            with self._client.endpoints.conversation(problem.instance_id) as conversation:
                completion = await self._client.complete(body, conversation)
            calls = completion.calls
            no_text = no_text_reason(
                completion.text,
                reasoning=completion.reasoning,
                has_calls=bool(completion.tool_calls),
                finish_reason=completion.finish_reason,
                refusal=completion.refusal,
            )
            verdict = await verify_completion(self._verifiers, problem, completion.text, no_text=no_text, seed=seed)
        except RequestFailedError as failure:
            error, calls = Failure(type=failure.type, message=failure.message), failure.calls
        except VerifierFailed as failure:
            error = Failure(type=failure.type, message=failure.message)
        return self._build_rollout(work, seed, completion, verdict, error, calls)

    def _build_rollout(
        self,
        work: ChatWork,
        seed: int,
        completion: Completion | None,
        verdict: Verdict | None,
        error: Failure | None,
        calls: int,
    ) -> CompletedRollout:
        """Build the journal's row and the outcome of one rollout.

        Args:
            work: The rollout's problem, number and attempt.
            seed: The seed that was sent.
            completion: The server's response; None where the request failed.
            verdict: None where the request or the verifier failed.
            error: The failure; None where there is a verdict.
            calls: Number of requests sent, retries included.
        """
        metadata: dict[str, Any] = {
            "model": self._model,
            "attempt": work.attempt,
            "max_tokens": self._sampling.max_tokens,
        }
        if completion and completion.refusal:
            metadata["refusal"] = completion.refusal[:_MOST_OF_REFUSAL]
        usage = completion.usage if completion else Usage()
        row = {
            "schema_version": SCHEMA_VERSION,
            "instance_id": work.prepared.problem.instance_id,
            "sample_id": work.sample_id,
            "seed": seed,
            "messages": work.prepared.messages,
            "completion": completion.text if completion else None,
            **_reasoning_and_calls(completion),
            **self._context,
            "reward": verdict.reward if verdict else None,
            "success": verdict.success if verdict else None,
            "verdict": verdict.model_dump() if verdict else None,
            "error": error.__dict__ if error else None,
            "usage": usage.__dict__,
            "latency_s": round(completion.latency_s, 4) if completion else None,
            "finish_reason": completion.finish_reason if completion else None,
            **_stop_text_field(completion, self._stops),
            "model_calls": calls,
            "metadata": metadata,
        }
        failure = error.message if error else None
        return CompletedRollout(
            work.prepared.problem.instance_id,
            work.sample_id,
            dump_line(row),
            RolloutOutcome.of_row(row),
            failure,
            (completion.tokens,) if completion and completion.tokens else (),
        )


def _reasoning_and_calls(completion: Completion | None) -> dict[str, Any]:
    """Return the row's fields for reasoning content and tool calls; empty where there are none."""
    fields: dict[str, Any] = {}
    if completion and completion.reasoning is not None:
        fields["reasoning_content"] = completion.reasoning
    if completion and completion.tool_calls:
        fields["tool_calls"] = [call.to_openai() for call in completion.tool_calls]
    return fields


def _stop_text_field(completion: Completion | None, stops: tuple[str, ...]) -> dict[str, str]:
    """Return the row's field for the stop text that ended the completion; empty where none did."""
    stop_text = completion.stop_text(stops) if completion else None
    return {} if stop_text is None else {"stop_text": stop_text}
