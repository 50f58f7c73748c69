"""Exact match of normalized answers, as in SQuAD."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = re.compile(f"[{re.escape(string.punctuation)}\u2212]")
_KEPT = re.compile(r"(?<=[0-9])[-\u2212./:](?=[0-9])")
"""Marks within numbers, dates and times, which change the meaning."""
_GROUPED = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9])")
_NUMBER = re.compile(r"(?P<before>[^\w.\u2212-]*)(?P<sign>[-\u2212]?)[$]?(?P<point>\.?)(?=[0-9])", re.ASCII)


def normalized(answer: str) -> str:
    """Normalize an answer: lower case, without ASCII punctuation and the articles a, an, the, with single spaces.

    The same as `normalize_answer` in SQuAD's official evaluation script (evaluate-v1.1.py; Rajpurkar et al. 2016),
    except that signs, points and slashes of numbers are kept: "-5" is not "5", and "1/2" is not "12".
    """
    words = _COMMA.sub(" ", _GROUPED.sub(lambda number: number[0].replace(",", ""), answer.lower())).split()
    return " ".join(_ARTICLES.sub(" ", " ".join(map(_without_marks, words))).split())


def _without_marks(word: str) -> str:
    number = _NUMBER.match(word)
    head = ""
    if number:
        head = ("-" if number["sign"] else "") + ("0." if number["point"] else "")
        word = word[number.end() :]
    # U+2212 is the minus sign, which is not in `string.punctuation`.
    kept = {mark.start() for mark in _KEPT.finditer(word)}
    return head + _MARKS.sub(lambda mark: mark[0].replace("\u2212", "-") if mark.start() in kept else "", word)


def is_exact_match(answer: str, accepted: Iterable[str]) -> bool:
    """Return whether an answer equals an accepted one after normalization; containing one is not enough."""
    folded = normalized(answer)
    return bool(folded) and any(folded == normalized(other) for other in accepted)
