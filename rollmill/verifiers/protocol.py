"""What a verifier is."""

from __future__ import annotations

from typing import Protocol

from rollmill.records import Problem, Verdict


class Verifier(Protocol):
    """A deterministic check of one completion against one problem.

    Two methods more are optional, and looked for by name:

    `problem_fault(problem) -> str | None` says why a problem cannot be judged at all ("answer 'abc' is not a
    number"), before any completion is there; cheap, since loaders ask it for every problem in their own process.

    `prepare()` does what is slow and done once, such as heavy imports: a worker calls it before its first
    verification, outside that one's time limit.

    Two more are for built-in verifiers, whose answers are nobody's: `evaluates(problem) -> bool` says that judging
    runs the answer as a program, which is then done in a fork, in a sandbox only; `prepare_problem(problem)` does
    before the fork what is the same for all answers.
    """

    name: str
    version: str
    """Changes whenever the judgement may change: part of a run's identity."""

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judges one completion.

        A completion without a usable answer is a verdict (`unparseable`); an exception means that the problem or the
        verifier is at fault, never the completion.
        """
        ...
