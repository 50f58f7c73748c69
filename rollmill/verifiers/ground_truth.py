"""Ground truths: one text, or several that are equally right."""

from __future__ import annotations

import json
import re

from rollmill.records import Problem
from rollmill.verifiers.stated_answer import stated_answer

_SOLUTION = re.compile(r"\\boxed\s*\{|^[ \t]*####", re.MULTILINE)
_MOST = 1000


def truths_of(problem: Problem) -> list[str]:
    """Return the texts of which an answer has to meet one; none where a problem has no ground truth.

    An answer that is a JSON list of texts stands for each of them, and a whole solution for its final answer.
    """
    answers = [problem.answer, *problem.equivalent_answers]
    return [_final_part(text) for answer in answers if answer is not None for text in _equivalent(answer)]


def numbers_of(problem: Problem) -> list[str]:
    """Return the numbers, as text, of which one has to be met: a JSON list stands for each, whatever is in it."""
    answers = [problem.answer, *problem.equivalent_answers]
    return [text for answer in answers if answer is not None for text in _equivalent_numbers(answer)]


def _equivalent(answer: str) -> list[str]:
    items = _json_list(answer)
    is_texts = answer.count('"') >= 2 * len(items)  # [0, 1] is an interval
    if items and is_texts and all(isinstance(item, str) and item.strip() for item in items):
        return [str(item).strip() for item in items]
    return [answer.strip()]


def _equivalent_numbers(answer: str) -> list[str]:
    items = _json_list(answer)
    if items and not any(isinstance(item, bool | list | dict) or item is None for item in items):
        return [str(item).strip() for item in items]
    return [answer.strip()]


def _final_part(truth: str) -> str:
    """Return the answer of a solution that marks it, as GSM8K's and MATH's do; any other text as it is."""
    return (stated_answer(truth) if _SOLUTION.search(truth) else None) or truth


def _json_list(answer: str) -> list[object]:
    if not answer.lstrip().startswith("["):
        return []
    try:
        items = json.loads(answer, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return []
    return items if isinstance(items, list) and len(items) <= _MOST else []
