"""How far a run is, and at what rate."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import NamedTuple

from rollmill.rollouts.run import Run
from rollmill.rollouts.tally import Outcome, Tally

_RATE_WINDOW_S = 60.0


class Snapshot(NamedTuple):
    """A run at one moment."""

    done: int
    total: int
    success_rate: float | None
    mean_error: float | None
    failed: int
    tokens_per_s: float
    rollouts_per_s: float
    eta_s: float | None
    """Seconds to the end at the present rate; None while there is none."""

    def describe(self) -> str:
        """The snapshot in one line."""
        success = "-" if self.success_rate is None else f"{self.success_rate:.1%}"
        error = "-" if self.mean_error is None else f"{self.mean_error:.3g}"
        left = "-" if self.eta_s is None else format_seconds(self.eta_s)
        failed = f", {self.failed} failed" if self.failed else ""
        return (
            f"{self.done}/{self.total} rollouts, success {success}, mean error {error}, "
            f"{self.tokens_per_s:.0f} tokens/s, {left} left{failed}"
        )


def format_seconds(seconds: float) -> str:
    """`45 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Counts one run's rollouts as they are journaled; written by the engine's thread, read by any.

    `left` are still to be made when this begins, of `total`; `before` counts those that were journaled then.
    """

    def __init__(self, *, total: int, left: int, before: Tally) -> None:
        self.total = total
        self.left = left
        self._before = before
        self.tally = Tally()
        """Of this session alone."""
        self.start()

    def start(self) -> None:
        """Begins the time that rates are taken over."""
        self._started = time.monotonic()
        self._marks: deque[tuple[float, int, int]] = deque([(self._started, 0, 0)])
        self._last_s = 0.0

    def observe(self, outcome: Outcome) -> None:
        """One more rollout is journaled."""
        self.tally.add(outcome)
        now = time.monotonic()
        self._last_s = now - self._started
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self.tally.done, self.tally.completion_tokens))
            while len(self._marks) > 2 and now - self._marks[0][0] > _RATE_WINDOW_S:
                self._marks.popleft()

    @property
    def tokens_per_s(self) -> float | None:
        """Completion tokens by the time from the start to the last rollout; None while there is none."""
        return self.tally.completion_tokens / self._last_s if self._last_s > 0 else None

    def snapshot(self) -> Snapshot:
        """The run as it is now; rates are those of the last minute."""
        since, done_then, tokens_then = self._marks[0]
        elapsed = max(time.monotonic() - since, 1e-3)
        rate = (self.tally.done - done_then) / elapsed
        done = self.total - self.left + self.tally.done
        judged = self._before.ok + self._before.unparseable + self.tally.ok + self.tally.unparseable
        counted = self._before.errors_counted + self.tally.errors_counted
        return Snapshot(
            done=done,
            total=self.total,
            success_rate=(self._before.success + self.tally.success) / judged if judged else None,
            mean_error=(self._before.error_sum + self.tally.error_sum) / counted if counted else None,
            failed=self._before.failed + self.tally.failed,
            tokens_per_s=(self.tally.completion_tokens - tokens_then) / elapsed,
            rollouts_per_s=rate,
            eta_s=(self.total - done) / rate if rate > 0 else None,
        )


def progress_of(run: Run) -> Progress:
    """The progress of a run that is just opened."""
    return Progress(total=run.expected, left=run.missing(), before=replace(run.journal.tally))
