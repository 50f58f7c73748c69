"""Counts of failed rollouts by type and message."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_MOST_WORDS = 200
_MOST_KINDS = 1000
# Numbers, addresses and hashes differ between messages that mean the same.
_VARYING = re.compile(r"\d+|0x[0-9a-fA-F]+|\b[0-9a-f]{8,}\b")


@dataclass(frozen=True)
class FailureWords:
    """Failures with the same type and, apart from numbers, the same message."""

    type: str
    """A word to count by, such as `http_400`."""
    words: str
    """Message of the first of them, on one line and shortened."""
    count: int


class FailureCounts:
    """Counts failures, grouped by type and message without numbers. Its memory is bounded whatever the messages are."""

    def __init__(self) -> None:
        self.total = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._words: dict[tuple[str, str], str] = {}

    def add(self, type_: str, message: str) -> None:
        """Count one failure."""
        self.total += 1
        # Cut before splitting: a message may be megabytes of a server's HTML.
        words = " ".join(message[: 4 * _MOST_WORDS].split())[:_MOST_WORDS]
        key = type_, _VARYING.sub("#", words)
        if key not in self._words and len(self._words) >= _MOST_KINDS:
            key, words = (type_, ""), "(other words)"
        self._words.setdefault(key, words)
        self._counts[key] += 1

    def most_common(self, count: int | None = None) -> list[FailureWords]:
        """Return the `count` most frequent groups, or all of them, most frequent first."""
        return [FailureWords(key[0], self._words[key], times) for key, times in self._counts.most_common(count)]
