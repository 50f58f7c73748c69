"""Equality of texts."""

from __future__ import annotations

import unicodedata

from rollmill.records import Problem, Verdict
from rollmill.verifiers.answer_tag import AnswerReading, answer_or_all
from rollmill.verifiers.ground_truth import truths_of
from rollmill.verifiers.registry import VerifierEntry

ENTRY = VerifierEntry("exact", "ExactVerifier", "the same text", trusted=True)


def fold(text: str) -> str:
    """Return `text` in Unicode's NFC, stripped, with every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class ExactVerifier:
    """Accepts an answer that is the ground truth, letter for letter, but for white space and Unicode's composition.

    The answer is what stands in the `<answer>` pair, or all that follows the thoughts where there is none. Of several
    ground truths one is enough. The error is 0 or 1; `accept_error` changes nothing.

    Args:
        answer: Which pair of tags counts.
    """

    name = "exact"

    def __init__(self, *, answer: AnswerReading = "last") -> None:
        self._reading: AnswerReading = answer
        self.version = "2" + "-first" * (answer == "first")

    def problem_fault(self, problem: Problem) -> str | None:
        """Return why there is no ground truth to compare with, or None."""
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
    """Return the ground truths; one that is a JSON list of texts is right as it stands, too."""
    return {folded for text in (problem.answer or "", *truths_of(problem)) if (folded := fold(text))}
