"""The distance of a number from the true one."""

from __future__ import annotations

import math
import re
import sys

from rollmill.records import Problem, Verdict
from rollmill.verifiers.answer_tag import shown, tagged_answer
from rollmill.verifiers.tolerance import is_accepted

# Python's own float() also takes "1_000" and the digits of every script.
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE | re.ASCII
)


def read_number(text: str) -> float:
    """The finite number that `text`, already stripped, is as a whole; `ValueError` says what it is instead."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a number")
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{shown(text)} is not a finite number")
    return number


class NumericVerifier:
    """|answer - truth| of the number in the first `<answer>` pair; success where that is at most `accept_error`.

    The rule at the edge is `is_accepted`'s. Reward is 1.0 or 0.0.
    """

    name = "numeric"
    version = "1"

    def __init__(self, *, accept_error: float = 0.0) -> None:
        self.accept_error = accept_error

    def problem_fault(self, problem: Problem) -> str | None:
        """Why the ground truth is no finite number, or None."""
        if problem.answer is None:
            return "there is no answer"
        try:
            read_number(problem.answer.strip())
        except ValueError as error:
            return f"answer {error}"
        return None

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Raises `ValueError`, naming the instance, where the ground truth is not a finite number."""
        try:
            truth = read_number((problem.answer or "").strip())
        except ValueError:
            raise ValueError(f"{problem.instance_id}: {self.problem_fault(problem)}") from None
        text = tagged_answer(completion)
        if text is None:
            return _unparseable("there is no <answer> tag")
        try:
            number = read_number(text)
        except ValueError as error:
            return _unparseable(str(error))
        # Two finite numbers can be further apart than the largest float, and a record holds no infinity.
        distance = min(abs(number - truth), sys.float_info.max)
        success = is_accepted(distance, self.accept_error, max(abs(number), abs(truth)))
        return Verdict(
            verifier="numeric@1",
            status="ok",
            answer=text,
            distance=distance,
            reward=1.0 if success else 0.0,
            success=success,
        )


def _unparseable(reason: str) -> Verdict:
    return Verdict(verifier="numeric@1", status="unparseable", reason=reason, reward=0.0, success=False)
