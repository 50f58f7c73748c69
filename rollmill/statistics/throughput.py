"""Rates of the last minute, and times as people write them."""

from __future__ import annotations

from collections import deque

_WINDOW_S = 60.0
_EVERY_S = 1.0


class RateMeter:
    """How fast counts have grown in the last minute, by any clock that counts seconds.

    Before a minute is over: since `now`, when they were `counts`.
    """

    def __init__(self, now: float, *counts: int) -> None:
        self._marks: deque[tuple[float, tuple[int, ...]]] = deque([(now, counts)])

    def mark(self, now: float, *counts: int) -> None:
        """Note the counts, once a second at most."""
        if now - self._marks[-1][0] < _EVERY_S:
            return
        self._marks.append((now, counts))
        while len(self._marks) > 2 and now - self._marks[0][0] > _WINDOW_S:
            self._marks.popleft()

    def rates(self, now: float, *counts: int) -> list[float]:
        """Return the rate of each count, per second."""
        since, then = self._marks[0]
        elapsed = max(now - since, 1e-3)
        return [(count - before) / elapsed for count, before in zip(counts, then, strict=True)]


def format_seconds(seconds: float) -> str:
    """`45 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
