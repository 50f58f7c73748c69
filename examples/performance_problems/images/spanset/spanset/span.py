"""One span of integers."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """The integers from `start` up to, but not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many integers it holds."""
        return max(0, self.stop - self.start)

    def meets(self, other: Span) -> bool:
        """Whether the two overlap or touch."""
        return self.start <= other.stop and other.start <= self.stop

    def joined(self, other: Span) -> Span:
        """The least span that holds both."""
        return Span(min(self.start, other.start), max(self.stop, other.stop))
