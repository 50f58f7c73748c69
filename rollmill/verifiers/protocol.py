"""The interface of verifiers."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

from rollmill.records import Problem, Verdict


class Verifier(Protocol):
    """A deterministic check of one completion against one problem.

    Two more methods are optional:

    `problem_fault(problem) -> str | None` says why a problem cannot be judged at all ("answer 'abc' is not a
    number"), before any completion is there; cheap, since loaders ask it for every problem in their own process.

    `prepare()` does what is slow and done once, such as heavy imports: a worker calls it before its first
    verification, outside that one's time limit.

    Two more are for built-in verifiers, which judge untrusted answers: `evaluates(problem) -> bool` says that judging
    runs the answer as a program, which is then done in a fork, in a sandbox only; `prepare_problem(problem)` does
    before the fork what is the same for all answers.

    `verify` may be a coroutine function, for verifiers that wait for something else: a sandbox, a model. It is then
    awaited in the run's own process, and the verifier entered where it is an asynchronous context manager. Where it has
    a parameter `seed`, that is the rollout's.
    """

    name: str
    version: str
    """Changes whenever the judgement may change: part of a run's identity."""

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge one completion.

        A completion without a usable answer is a verdict (`unparseable`); an exception means that the problem or the
        verifier is at fault, never the completion.
        """
        ...


class CompletionJudge(Protocol):
    """What judges a run's completions, by whatever verifiers; an asynchronous context manager."""

    identity: dict[str, Any]
    """What determines the verdicts: `{"verifier": "numeric@1", "accept_error": 0.0}`."""

    async def __aenter__(self) -> object:
        """Open what judging needs."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        ...

    async def verify(self, problem: Problem, completion: str, *, seed: int = 0) -> Verdict:
        """Return the verdict on one completion. Raises `VerifierFailed` where there is none.

        Args:
            problem: What the completion answers.
            completion: Its text.
            seed: The rollout's, for verifiers that draw.
        """
        ...
