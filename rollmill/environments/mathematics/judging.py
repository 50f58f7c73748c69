"""Whether an answer is right, and whether two answers are the same."""

from __future__ import annotations

import re

from rollmill.environments.tools import Verification
from rollmill.records import Problem
from rollmill.verifiers.answer_tag import CLOSE, OPEN

LONGEST_ANSWER = 1000
"""Characters."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def is_gym(problem: Problem) -> bool:
    """Return whether reasoning-gym made the problem."""
    return "reasoning_gym" in problem.fields


def answer_fault(answer: str) -> str | None:
    """Return why a text cannot be an answer, or None."""
    if len(answer) > LONGEST_ANSWER:
        return f"the answer has more than {LONGEST_ANSWER} characters"
    if OPEN in answer or CLOSE in answer:
        return "the answer has tags in it"
    return None


class Judge:
    """Asks verifiers about the answers to one problem. Its methods raise `VerifierFailed` where there is no verdict.

    The ground truth is mathematics as `math` reads it, or what `reasoning_gym` scores in full. Where that is a plain
    number, an answer must please both: some of reasoning-gym's scorers take the first digits of any text
    (gsm_symbolic finds 18 in -18 and in "18 or 20").
    """

    def __init__(self, problem: Problem, verification: Verification) -> None:
        self._problem = problem
        self._verification = verification
        self._verifiers = ["reasoning_gym"] if is_gym(problem) else ["math"]
        if is_gym(problem) and _NUMBER.fullmatch((problem.answer or "").strip()):
            self._verifiers.append("math")

    def is_right(self, answer: str) -> bool:
        """Return whether the answer equals the ground truth."""
        return all(self._verification.verify(name, self._problem, _tagged(answer)).success for name in self._verifiers)

    def is_same(self, answer: str, other: str) -> bool:
        """Return whether two answers are equal as text, or as mathematics where both parse."""
        if answer == other:
            return True
        return self._is_mathematics(answer) and self._is_mathematics(other) and self._is_equal(answer, other)

    def _is_equal(self, truth: str, answer: str) -> bool:
        problem = self._problem.model_copy(update={"answer": truth.strip(), "equivalent_answers": ()})
        return self._verification.verify("math", problem, _tagged(answer)).success

    def _is_mathematics(self, answer: str) -> bool:
        # What is no mathematics would be a fault of the problem's, were it given as the truth.
        problem = self._problem.model_copy(update={"answer": "0", "equivalent_answers": ()})
        return self._verification.verify("math", problem, _tagged(answer)).status == "ok"


def _tagged(answer: str) -> str:
    return f"{OPEN}{answer.strip()}{CLOSE}"
