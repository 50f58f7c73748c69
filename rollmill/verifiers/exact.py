"""Equality of texts."""

from __future__ import annotations

import unicodedata

from rollmill.records import Problem, Verdict
from rollmill.verifiers.answer_tag import answer_or_all


def fold(text: str) -> str:
    """`text` in Unicode's NFC, stripped, with every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class ExactVerifier:
    """Whether the answer is the ground truth, letter for letter, but for white space and Unicode's composition.

    The answer is what stands in the `<answer>` pair, or the whole completion where no tag opens. The error is 0 or 1;
    `accept_error` changes nothing.
    """

    name = "exact"
    version = "1"

    def problem_fault(self, problem: Problem) -> str | None:
        """Why there is nothing to compare with, or None."""
        return None if fold(problem.answer or "") else "there is no answer"

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Raises `ValueError`, naming the instance, where the ground truth is missing or empty."""
        truth = fold(problem.answer or "")
        if not truth:
            raise ValueError(f"{problem.instance_id}: there is no answer")
        answer = fold(answer_or_all(completion))
        if not answer:
            return Verdict(
                verifier="exact@1", status="unparseable", reason="the answer is empty", reward=0.0, success=False
            )
        right = answer == truth
        return Verdict(
            verifier="exact@1",
            status="ok",
            answer=answer,
            distance=0.0 if right else 1.0,
            reward=1.0 if right else 0.0,
            success=right,
        )
