"""Verify by equality of texts."""

from __future__ import annotations

import unicodedata

from rollmill.records import Problem, Verdict
from rollmill.verifiers.answer_tag import AnswerReading, answer_or_all
from rollmill.verifiers.ground_truth import truths_of
from rollmill.verifiers.registry import VerifierEntry

ENTRY = VerifierEntry("exact", "ExactVerifier", "the same text", trusted=True)


def fold(text: str) -> str:
    """Normalize `text`: Unicode NFC, stripped, with every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class ExactVerifier:
    """Accepts an answer that equals the ground truth, except for white space and Unicode composition.

    The answer is the content of the `<answer>` pair, or without one all text after the reasoning. It has to equal one
    of the ground truths. The error is 0 or 1; `accept_error` has no effect.

    Args:
        answer: The pair of tags that is judged.
    """

    name = "exact"

    def __init__(self, *, answer: AnswerReading = "last") -> None:
        self._reading: AnswerReading = answer
        self.version = "2-first" if answer == "first" else "2"

    def problem_fault(self, problem: Problem) -> str | None:
        """Return that there is no ground truth, or None."""
        return None if _folded_truths(problem) else "there is no answer"

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge a completion. Raises `ValueError`, naming the instance, where the ground truth is missing or empty."""
        truths = _folded_truths(problem)
        if not truths:
            raise ValueError(f"{problem.instance_id}: there is no answer")
        verifier = f"exact@{self.version}"
        answer = fold(answer_or_all(completion, self._reading))
        if not answer:
            return Verdict(
                verifier=verifier, status="unparseable", reason="the answer is empty", reward=0.0, success=False
            )
        right = answer in truths
        return Verdict(
            verifier=verifier,
            status="ok",
            answer=answer,
            distance=0.0 if right else 1.0,
            reward=1.0 if right else 0.0,
            success=right,
        )


def _folded_truths(problem: Problem) -> set[str]:
    """Return the normalized ground truths, including the literal text of one that is a JSON list."""
    return {folded for text in (problem.answer or "", *truths_of(problem)) if (folded := fold(text))}
