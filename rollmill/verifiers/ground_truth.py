"""Read the ground truths of a problem: one text, or several equivalent ones."""

from __future__ import annotations

import json
import re

from rollmill.records import Problem
from rollmill.verifiers.stated_answer import stated_answer

_SOLUTION = re.compile(r"\\boxed\s*\{|^[ \t]*####", re.MULTILINE)
_MOST = 1000


def truths_of(problem: Problem) -> list[str]:
    """Return the equivalent ground truths as texts; empty if the problem has none.

    A JSON list of texts is split into its items, and a worked solution is reduced to its final answer.
    """
    answers = [problem.answer, *problem.equivalent_answers]
    return [_final_part(text) for answer in answers if answer is not None for text in _equivalent(answer)]


def numbers_of(problem: Problem) -> list[str]:
    """Return the equivalent ground truths of a numeric problem as texts; a JSON list of scalars is split."""
    answers = [problem.answer, *problem.equivalent_answers]
    return [text for answer in answers if answer is not None for text in _equivalent_numbers(answer)]


def _equivalent(answer: str) -> list[str]:
    items = _json_list(answer)
    # Numbers were parsed as texts, too; only quotes tell `["0", "1"]` from `[0, 1]`, which is an interval.
    is_texts = answer.count('"') >= 2 * len(items)
    if items and is_texts and all(isinstance(item, str) and item.strip() for item in items):
        return [str(item).strip() for item in items]
    return [answer.strip()]


def _equivalent_numbers(answer: str) -> list[str]:
    items = _json_list(answer)
    if items and not any(isinstance(item, bool | list | dict) or item is None for item in items):
        return [str(item).strip() for item in items]
    return [answer.strip()]


def _final_part(truth: str) -> str:
    """Return the final answer of a solution that marks it, as in GSM8K and MATH; other texts unchanged."""
    return (stated_answer(truth) if _SOLUTION.search(truth) else None) or truth


def _json_list(answer: str) -> list[object]:
    if not answer.lstrip().startswith("["):
        return []
    try:
        items = json.loads(answer, parse_int=str, parse_float=str)  # numbers keep all their digits
    except (ValueError, RecursionError):
        return []
    return items if isinstance(items, list) and len(items) <= _MOST else []
