"""Rates over the last minute, and durations as text."""

from __future__ import annotations

from collections import deque

_WINDOW_S = 60.0
_EVERY_S = 1.0


class RateMeter:
    """Measures the growth of counters over a sliding window of one minute, by any clock in seconds.

    In the first minute the window begins at the constructor's `now`, when the counters were `counts`.
    """

    def __init__(self, now: float, *counts: int) -> None:
        self._marks: deque[tuple[float, tuple[int, ...]]] = deque([(now, counts)])

    def mark(self, now: float, *counts: int) -> None:
        """Record the counters; calls within a second of the last record are ignored."""
        if now - self._marks[-1][0] < _EVERY_S:
            return
        self._marks.append((now, counts))
        while len(self._marks) > 2 and now - self._marks[0][0] > _WINDOW_S:
            self._marks.popleft()

    def rates(self, now: float, *counts: int) -> list[float]:
        """Return the growth of each counter per second."""
        since, then = self._marks[0]
        elapsed = max(now - since, 1e-3)
        return [(count - before) / elapsed for count, before in zip(counts, then, strict=True)]


def format_seconds(seconds: float) -> str:
    """Return a duration as text: `45 s`, `3 min 05 s`, `2 h 10 min`."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"
