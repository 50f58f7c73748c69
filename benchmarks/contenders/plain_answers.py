"""Common simple ways to read an answer, as custom verifiers to compare with."""

from __future__ import annotations

import re

from rollmill.records import Problem

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")


def math_verify(problem: Problem, completion: str) -> float:
    """Judge as math-verify's README does: parse both, verify, its own time limits."""
    import math_verify

    truth = math_verify.parse(f"${bare(problem)}$")
    return float(math_verify.verify(truth, math_verify.parse(completion)))


def last_number(problem: Problem, completion: str) -> float:
    """Compare the last number of the text, without its separators, with the truth's."""
    numbers, truths = (_NUMBER.findall(text) for text in (completion, bare(problem)))
    return float(bool(numbers) and bool(truths) and _value(numbers[-1]) == _value(truths[-1]))


def last_boxed(problem: Problem, completion: str) -> float:
    r"""Compare the text in the last `\\boxed{}`, without its blanks, with the truth's."""
    boxes = _BOXED.findall(completion)
    return float(bool(boxes) and "".join(boxes[-1].split()) == "".join(bare(problem).split()))


def bare(problem: Problem) -> str:
    """Return the ground truth behind GSM8K's mark, or the whole of it."""
    answer = problem.answer or ""
    return answer.rpartition("####")[2].strip()


def _value(number: str) -> float:
    return float(number.replace(",", ""))
