"""What rollouts failed of: types, and the words of servers, each with its count."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_MOST_WORDS = 200
_MOST_KINDS = 1000
_VARYING = re.compile(r"\d+|0x[0-9a-fA-F]+|\b[0-9a-f]{8,}\b")


@dataclass(frozen=True)
class FailureWords:
    """Failures that say the same."""

    type: str
    """A word to count by, such as `http_400`."""
    words: str
    """The first one's message, on one line and shortened."""
    count: int


class FailureCounts:
    """Counts failures that say the same, but for their numbers. Memory is bounded whatever they say."""

    def __init__(self) -> None:
        self.total = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._words: dict[tuple[str, str], str] = {}

    def add(self, type_: str, message: str) -> None:
        """Count one failure."""
        self.total += 1
        words = " ".join(message[: 4 * _MOST_WORDS].split())[:_MOST_WORDS]
        key = type_, _VARYING.sub("#", words)
        if key not in self._words and len(self._words) >= _MOST_KINDS:
            key, words = (type_, ""), "(other words)"
        self._words.setdefault(key, words)
        self._counts[key] += 1

    def most_common(self, count: int | None = None) -> list[FailureWords]:
        """Return the commonest failures, or all of them, most frequent first."""
        return [FailureWords(key[0], self._words[key], times) for key, times in self._counts.most_common(count)]
