"""What the agents of one episode share: the code, the tests, and how they go together."""

from __future__ import annotations

import random
from typing import Any

from rollmill.environments.code.checking import Case, CaseOutcome, Checker
from rollmill.environments.code.mutants import find_mutants
from rollmill.environments.code.subject import Subject
from rollmill.environments.environment import Step

MALFORMED = -0.5
"""Reward of a completion without a block of Python."""


class CodeState:
    """The state of an episode. `checks`: tests that stand from the beginning, and that nobody writes; or none."""

    def __init__(self, subject: Subject, checker: Checker, *, seed: int, mutants: int, checks: str = "") -> None:
        self.subject = subject
        self.code = ""
        self.tests = checks
        self.fit: CaseOutcome | None = None
        """How the tests fare on the code; None without either of them."""
        self.load_failure = ""
        """Why the code does not even run."""
        self.truth: CaseOutcome | None = None
        """How the ground truth fares on the code: nothing of its failures."""
        self._checker = checker
        self._seed = seed
        self._mutants = mutants

    def take_code(self, code: str) -> Step:
        """Judges new code: reward 1.0 where the ground-truth tests pass, else 0.0."""
        self.code = code
        # Tests that somebody wrote run by themselves: they could end what judges the code by the ground truth.
        (self.truth,) = self._checker.check([Case(code, self.subject.truth, secret=True)])
        self.load_failure = "; ".join(self.truth.failures)
        self._fit()
        told = {"ground_truth": self.truth.reason}
        return Step(float(self.truth.passed), told | self._told_fit())

    def take_tests(self, tests: str) -> Step:
        """Judges new tests by the reference solution and its mutants: the share of the mutants that they find."""
        self.tests = tests
        self._fit()
        reward, told = self._tests_reward()
        return Step(reward, told | self._told_fit())

    def _fit(self) -> None:
        self.fit = self._checker.check([Case(self.code, self.tests)])[0] if self.code and self.tests else None

    def _told_fit(self) -> dict[str, Any]:
        return {"tests": self.fit.reason} if self.fit else {}

    def _tests_reward(self) -> tuple[float, dict[str, Any]]:
        reference = self.subject.reference
        if reference is None:
            return 0.0, {"reason": "the problem has no reference solution"}
        mutants = find_mutants(self.subject, self._checker, self._mutants)
        if not mutants:
            return 0.0, {"reason": "the reference solution fails the ground truth"}
        # Shuffled, and the reference twice: tests that keep notes or draw lots cannot tell which is which.
        sources = [reference, reference, *mutants]
        order = list(range(len(sources)))
        random.Random(f"{self._seed} {self.tests}").shuffle(order)
        judged = self._checker.check([Case(sources[place], self.tests) for place in order])
        outcomes = dict(zip(order, judged, strict=True))
        right = [outcomes[place] for place in (0, 1)]
        found = sum(not outcomes[place].passed for place in range(2, len(sources)))
        failed = next((each.reason for each in right if not each.passed), None)
        if failed:
            return 0.0, {"reference": failed}
        return found / len(mutants), {"reference": "passed", "mutants": len(mutants), "mutants_found": found}
