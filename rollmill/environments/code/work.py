"""State that the agents of one episode share: the code, the tests, and their results."""

from __future__ import annotations

import random
from typing import Any

from rollmill.environments.code.checking import Case, CaseOutcome, Checker
from rollmill.environments.code.mutants import find_mutants
from rollmill.environments.code.subject import Subject
from rollmill.environments.environment import Step

MALFORMED = -0.5
"""Reward of a completion without a Python block."""


class CodeState:
    """State of an episode.

    Args:
        subject: The problem.
        checker: Runs tests.
        seed: Seed of the order in which mutants are judged.
        mutants: Number of mutants.
        checks: Fixed tests from the problem, for an episode without a test generator; else empty.
    """

    def __init__(self, subject: Subject, checker: Checker, *, seed: int, mutants: int, checks: str = "") -> None:
        self.subject = subject
        self.code = ""
        self.tests = checks
        self.fit: CaseOutcome | None = None
        """Outcome of the tests on the code; None if one of the two is missing."""
        self.load_failure = ""
        """Reason why the code cannot be loaded; empty if it can."""
        self.truth: CaseOutcome | None = None
        """Outcome of the ground-truth tests on the code, without their failures."""
        self._checker = checker
        self._seed = seed
        self._mutants = mutants

    def take_code(self, code: str) -> Step:
        """Judge new code: reward 1.0 if the ground-truth tests pass, else 0.0."""
        self.code = code
        # In a call of its own: an agent's tests could kill the process that judges by the ground truth.
        (self.truth,) = self._checker.check([Case(code, self.subject.truth, secret=True)])
        self.load_failure = "; ".join(self.truth.failures)
        self._fit()
        info = {"ground_truth": self.truth.reason}
        return Step(float(self.truth.passed), info | self._fit_info())

    def take_tests(self, tests: str) -> Step:
        """Judge new tests by the reference and its mutants; the reward is the share of mutants that they detect."""
        self.tests = tests
        self._fit()
        reward, info = self._tests_reward()
        return Step(reward, info | self._fit_info())

    def _fit(self) -> None:
        self.fit = self._checker.check([Case(self.code, self.tests)])[0] if self.code and self.tests else None

    def _fit_info(self) -> dict[str, Any]:
        return {"tests": self.fit.reason} if self.fit else {}

    def _tests_reward(self) -> tuple[float, dict[str, Any]]:
        reference = self.subject.reference
        if reference is None:
            return 0.0, {"reason": "the problem has no reference solution"}
        mutants = find_mutants(self.subject, self._checker, self._mutants)
        if not mutants:
            return 0.0, {"reason": "the reference solution fails the ground truth"}
        # Shuffled, and with the reference twice, so that tests with a memory or random choices cannot recognize it.
        sources = [reference, reference, *mutants]
        order = list(range(len(sources)))
        random.Random(f"{self._seed} {self.tests}").shuffle(order)
        judged = self._checker.check([Case(sources[index], self.tests) for index in order])
        outcomes = dict(zip(order, judged, strict=True))
        right = [outcomes[index] for index in (0, 1)]
        killed = sum(not outcomes[index].passed for index in range(2, len(sources)))
        failed = next((each.reason for each in right if not each.passed), None)
        if failed:
            return 0.0, {"reference": failed}
        return killed / len(mutants), {"reference": "passed", "mutants": len(mutants), "mutants_found": killed}
