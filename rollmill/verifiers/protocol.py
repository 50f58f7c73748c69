"""Interfaces of verifiers and of objects that judge completions."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

from rollmill.records import Problem, Verdict


class Verifier(Protocol):
    """A deterministic check of one completion against one problem.

    Two more methods are optional:

    `problem_fault(problem) -> str | None` returns why a problem cannot be judged at all ("answer 'abc' is not a
    number"), before there is any completion. It must be cheap, since loaders call it for every problem.

    `prepare()` does slow one-time work, such as heavy imports. A worker calls it before its first verification, outside
    of the time limit.

    Two more are for built-in verifiers, which judge untrusted answers: `executes_answers(problem) -> bool` returns
    whether judging runs the answer as a program, which is then done in a fork, and only in a sandbox;
    `prepare_problem(problem)` does before the fork what is the same for all answers.

    `verify` may be a coroutine function, for verifiers that wait for a sandbox or a model. It is then awaited in the
    run's process, and the verifier is entered if it is an asynchronous context manager. A parameter `seed`, if it has
    one, receives the rollout's seed.
    """

    name: str
    version: str
    """Must change whenever verdicts may change; part of a run's identity."""

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge one completion.

        A completion without a usable answer is a verdict (`unparseable`); an exception means that the problem or the
        verifier is at fault, never the completion.
        """
        ...


class CompletionJudge(Protocol):
    """Judges a run's completions by one or several verifiers; an asynchronous context manager."""

    identity: dict[str, Any]
    """The parameters that determine the verdicts: `{"verifier": "numeric@1", "accept_error": 0.0}`."""

    async def __aenter__(self) -> object:
        """Acquire resources such as worker processes or connections."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the resources."""
        ...

    async def verify(self, problem: Problem, completion: str, *, seed: int = 0) -> Verdict:
        """Return the verdict on one completion. Raises `VerifierFailed` if there is none.

        Args:
            problem: The problem that the completion answers.
            completion: Text of the completion.
            seed: Seed of the rollout, for verifiers that sample.
        """
        ...
