"""Verify by the distance of a number from the ground truth."""

from __future__ import annotations

import functools
import math
import re
import sys
from fractions import Fraction

from rollmill.records import Problem, Verdict
from rollmill.verifiers.answer_tag import AnswerReading, answer_or_all, quote, tagged_answer
from rollmill.verifiers.conclusion import (
    conclusion,
    last_sentence,
    readings,
    remove_check,
    remove_comment,
    remove_struck,
)
from rollmill.verifiers.ground_truth import numbers_of
from rollmill.verifiers.plain_text import LONGEST
from rollmill.verifiers.registry import VerifierEntry
from rollmill.verifiers.stated_answer import bold_answer, last_line, stated_answer
from rollmill.verifiers.tolerance import is_accepted
from rollmill.verifiers.units import is_hedged
from rollmill.verifiers.written_number import WrittenNumber, format_number, read_only_number, read_written

ENTRY = VerifierEntry("numeric", "NumericVerifier", "a number at most --accept_error away", trusted=True)

# Python's own float() also takes "1_000" and the digits of every script.
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE | re.ASCII
)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_SENTENCE_ENDS = (".", "!", ".)", ".*", ".**", "]", "$")
_LIST_MARK = re.compile(r"[0-9]+[.)]")
_MOST_TRUTHS = 1024


def read_number(text: str) -> float:
    """Parse `text`, already stripped, as a finite number. Raises `ValueError` with the text."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{quote(text)} is not a number")
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{quote(text)} is not a finite number")
    return number


def read_stated(text: str, *, is_all_answer: bool) -> WrittenNumber:
    """Read the number that a text states as its answer. Raises `ValueError` if there is none, or more than one.

    Args:
        text: Completion after its reasoning, or content of its tags.
        is_all_answer: Whether the text is nothing but the answer, so that each number in it is a candidate.
    """
    text = remove_struck(text)
    try:
        return _check_finite(read_written(text))
    except ValueError as error:
        reason = str(error)
    stated = stated_answer(text)
    if stated is None:
        text = remove_check(text)
        stated = bold_answer(text)
    if stated is None:
        return _check_finite(_only_number(text, is_all_answer=is_all_answer, reason=reason))
    return _check_finite(_read_statement(stated))


class NumericVerifier:
    """Measures |answer - truth| for the number in a completion; success is a distance of at most `accept_error`.

    `is_accepted` handles rounding at the limit. Reward is 1.0 or 0.0. The number between the tags, or in the final
    statement of a completion without tags, may be written as people write numbers, see `read_written`. So may the
    ground truth, which may also be a JSON list of equivalent numbers. A number with a percent sign is the number before
    the sign; if the ground truth has a percent sign, its hundredth is right as well.

    Args:
        accept_error: Largest distance of a success.
        answer: The pair of tags that is judged.
        strict_numbers: Whether tags are required, and numbers, the ground truth included, may have nothing but digits,
            point, sign and exponent. Together with `answer="first"` that is version 1.
    """

    name = "numeric"

    def __init__(
        self, *, accept_error: float = 0.0, answer: AnswerReading = "last", strict_numbers: bool = False
    ) -> None:
        self.accept_error = accept_error
        self._reading: AnswerReading = answer
        self._is_strict = strict_numbers
        self.version = "1" if strict_numbers and answer == "first" else "2"
        if self.version != "1":
            self.version += ("-first" if answer == "first" else "") + ("-strict" if strict_numbers else "")

    def problem_fault(self, problem: Problem) -> str | None:
        """Return why the ground truth is not a finite number, or None."""
        if problem.answer is None:
            return "there is no answer"
        try:
            self._truths(problem)
        except ValueError as error:
            return f"answer {error}"
        return None

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge a completion. Raises `ValueError`, naming the instance, if the ground truth is not a finite number."""
        try:
            truths = self._truths(problem)
        except ValueError as error:
            fault = "there is no answer" if problem.answer is None else f"answer {error}"
            raise ValueError(f"{problem.instance_id}: {fault}") from None
        try:
            number, text = self._answer(completion)
        except ValueError as error:
            return self._unparseable(str(error))
        distance, magnitude = min(
            (_least_distance(number, truth) for truth in truths), key=lambda difference: difference[0]
        )
        success = is_accepted(distance, self.accept_error, magnitude)
        return Verdict(
            verifier=f"numeric@{self.version}",
            status="ok",
            answer=text,
            distance=distance,
            reward=1.0 if success else 0.0,
            success=success,
        )

    def _truths(self, problem: Problem) -> list[WrittenNumber]:
        if self._is_strict:
            return [_strict_truth(text.strip()) for text in (problem.answer or "", *problem.equivalent_answers)]
        return [_read_truth(text) for text in numbers_of(problem) or [""]]

    def _answer(self, completion: str) -> tuple[WrittenNumber, str]:
        """Return the number of the answer and its text. Raises `ValueError`."""
        tagged = tagged_answer(completion, self._reading)
        if self._is_strict:
            if tagged is None:
                raise ValueError("there is no <answer> tag")
            return WrittenNumber(Fraction(read_number(tagged))), tagged
        text = answer_or_all(completion, self._reading) if tagged is None else tagged
        if not text:
            raise ValueError("the answer is empty")
        number = read_stated(text, is_all_answer=tagged is not None)
        return number, str(number)

    def _unparseable(self, reason: str) -> Verdict:
        return Verdict(
            verifier=f"numeric@{self.version}", status="unparseable", reason=reason, reward=0.0, success=False
        )


@functools.lru_cache(_MOST_TRUTHS)
def _strict_truth(text: str) -> WrittenNumber:
    return WrittenNumber(Fraction(read_number(text)))


@functools.lru_cache(_MOST_TRUTHS)
def _read_truth(text: str) -> WrittenNumber:
    """Read a ground truth, which may be a whole solution that ends with its answer. Raises `ValueError`."""
    if _NUMBER.fullmatch(text):
        read_number(text)  # raises the more exact error for a number that is not finite
    try:
        return _check_finite(read_written(text))
    except ValueError:
        stated = stated_answer(text)
        if not stated:
            raise
        return _check_finite(read_written(stated))


def _check_finite(number: WrittenNumber) -> WrittenNumber:
    if abs(number.value) > Fraction(sys.float_info.max):
        raise ValueError(f"{quote(format_number(number.value))} is not a finite number")
    return number


def _read_statement(stated: str) -> WrittenNumber:
    """Read a stated answer, which may have a comment after the number. Raises `ValueError`."""
    try:
        return read_written(stated)
    except ValueError:
        if len(stated) > LONGEST:
            raise
        clause = remove_comment(stated)
        parts = [clause, *readings(clause, is_final=True)]
        numbers = (number for part in parts if not is_hedged(part) and (number := _try_read(part)))
        if (number := next(numbers, None)) is None:
            raise
        return number


def _only_number(text: str, *, is_all_answer: bool, reason: str) -> WrittenNumber:
    """Return the number that an answer, or a completion's last sentence, results in.

    Raises `ValueError` with `reason` if there is none, or more than one.
    """
    line = text if is_all_answer else last_line(text)
    sentence = line if is_all_answer else last_sentence(line)
    is_final = is_all_answer or sentence == text.strip()
    # A completion that was cut at its token limit ends within a sentence, whose number may be an intermediate one.
    is_whole = is_final or sentence.endswith(_SENTENCE_ENDS)
    if _LIST_MARK.fullmatch(line) and line != text.strip():
        raise ValueError(reason)
    clause = conclusion(sentence)
    if not is_all_answer and _PROSE.search(clause):
        clause = clause.rstrip("!")  # an exclamation mark after prose is not a factorial
    for part in (clause, *readings(clause, is_final=is_final)):
        if not is_hedged(part) and (number := _try_read(part) or (read_only_number(part) if is_whole else None)):
            return number
    raise ValueError(reason)


def _try_read(text: str) -> WrittenNumber | None:
    try:
        return read_written(text)
    except ValueError:
        return None


def _least_distance(number: WrittenNumber, truth: WrittenNumber) -> tuple[float, float]:
    """Return the distance of a number from the truth, and the larger of their magnitudes.

    Of a number that may be meant as a percentage, the reading with the smaller distance counts.
    """
    pairs = [(number.value, truth.value)]
    if truth.percent and not number.percent:
        pairs.append((number.value, truth.value / 100))
    return min(((_distance(a, b), float(max(abs(a), abs(b)))) for a, b in pairs), key=lambda pair: pair[0])


def _distance(number: Fraction, truth: Fraction) -> float:
    if number.denominator != 1 or truth.denominator != 1:
        if float(number) == float(truth):  # 0.1 and 0.1000000000000000055 are the same float
            return 0.0
        return min(abs(float(number) - float(truth)), sys.float_info.max)
    # Two finite numbers can differ by more than the largest float, and JSON has no infinity.
    return float(min(abs(number - truth), Fraction(sys.float_info.max)))
