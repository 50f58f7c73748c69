"""Whether an answer is the one wanted: equal as text, once normalised."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """Lower case, without ASCII punctuation and the articles a, an, the, with single spaces.

    As `normalize_answer` in SQuAD's official evaluation script does it (evaluate-v1.1.py; Rajpurkar et al. 2016).
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def is_exact_match(answer: str, accepted: Iterable[str]) -> bool:
    """Whether an answer equals one of those accepted; a part of it, or more than it, does not."""
    given = normalized(answer)
    return bool(given) and any(given == normalized(other) for other in accepted)
