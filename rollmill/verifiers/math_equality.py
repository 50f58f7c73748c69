"""Mathematical equality, as math-verify sees it."""

from __future__ import annotations

import functools
import logging
import re
from typing import Any

from rollmill.records import Problem, Verdict
from rollmill.verifiers.answer_tag import answer_or_all, shown, tagged_answer

_DELIMITERS = ("$", "\\boxed", "\\(", "\\[")
_EXPONENT = re.compile(r"([+-]?[0-9.]+)[eE]([+-]?[0-9]+)")


class MathVerifier:
    r"""Whether the answer equals the ground truth as mathematics: `\frac12`, 0.5 and 1/2 are the same.

    Reads the `<answer>` pair where tags are, else the whole completion, of which math-verify takes a `\boxed{}` before
    anything else, and the last expression otherwise. Its rules hold: a fraction equals its decimal from 6
    places on (1/3 and 0.333333), a percentage both of its readings (50% is 0.5 and 50). The error is 0 or 1;
    `accept_error` changes nothing.
    Runs without a time limit of its own, and simplification can take for ever: meant for a worker.
    """

    name = "math"
    version = "1"
    """For math-verify 0.9.0, which pyproject.toml pins: another release is another version here."""

    def prepare(self) -> None:
        """Imports math-verify: one to two seconds."""
        _math_verify()

    def problem_fault(self, problem: Problem) -> str | None:
        """Why there is nothing to compare with, or None; whether it is mathematics is seen when it is needed."""
        return None if (problem.answer or "").strip() else "there is no answer"

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Raises `ValueError`, naming the instance, where the ground truth is missing or is no mathematics."""
        truth = _parse_bare((problem.answer or "").strip())
        if not truth:
            fault = self.problem_fault(problem) or f"answer {shown(problem.answer or '')} is not mathematics"
            raise ValueError(f"{problem.instance_id}: {fault}")
        text = answer_or_all(completion)
        parsed = _parse(text) if tagged_answer(completion) is None else _parse_bare(text)
        if not parsed:
            reason = f"no mathematics in {shown(text)}" if text else "the answer is empty"
            return Verdict(verifier="math@1", status="unparseable", reason=reason, reward=0.0, success=False)
        right = bool(_math_verify().verify(list(truth), list(parsed), timeout_seconds=None))
        return Verdict(
            verifier="math@1",
            status="ok",
            # math-verify gives the text that it read beside the expression, whose own text can take for ever to make.
            answer=next((part for part in parsed if isinstance(part, str)), None),
            distance=0.0 if right else 1.0,
            reward=1.0 if right else 0.0,
            success=right,
        )


@functools.cache
def _math_verify() -> Any:
    # It warns once that its time limits are off, which is what is wanted here.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    import math_verify

    return math_verify


@functools.lru_cache(maxsize=256)
def _parse_bare(text: str) -> tuple[Any, ...]:
    r"""The expressions in text that is all answer: LaTeX without delimiters (`x^2+1`) is read as such.

    math-verify knows LaTeX only between delimiters, and takes the e of 1.5e3 there for Euler's number.
    """
    if text and not any(delimiter in text for delimiter in _DELIMITERS):
        scientific = _EXPONENT.fullmatch(text)
        latex = f"{scientific[1]} \\times 10^{{{scientific[2]}}}" if scientific else text
        return _parse(f"\\boxed{{{latex}}}") or _parse(text)
    return _parse(text)


def _parse(text: str) -> tuple[Any, ...]:
    return tuple(_math_verify().parse(text, parsing_timeout=None))
