"""How far a run is, and at what rate."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from rollmill.generation.run import Run
from rollmill.generation.tally import RolloutOutcome, Tally
from rollmill.statistics.throughput import RateMeter, format_seconds


class RolloutSnapshot(NamedTuple):
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
        self._recent = RateMeter(self._started, 0, 0)
        self._last_s = 0.0

    def observe(self, outcome: RolloutOutcome) -> None:
        """One more rollout is journaled."""
        self.tally.add(outcome)
        now = time.monotonic()
        self._last_s = now - self._started
        self._recent.mark(now, self.tally.done, self.tally.completion_tokens)

    @property
    def tokens_per_s(self) -> float | None:
        """Completion tokens by the time from the start to the last rollout; None while there is none."""
        return self.tally.completion_tokens / self._last_s if self._last_s > 0 else None

    def snapshot(self) -> RolloutSnapshot:
        """The run as it is now; rates are those of the last minute."""
        rate, tokens_per_s = self._recent.rates(time.monotonic(), self.tally.done, self.tally.completion_tokens)
        done = self.total - self.left + self.tally.done
        judged = self._before.ok + self._before.unparseable + self.tally.ok + self.tally.unparseable
        counted = self._before.errors_counted + self.tally.errors_counted
        return RolloutSnapshot(
            done=done,
            total=self.total,
            success_rate=(self._before.success + self.tally.success) / judged if judged else None,
            mean_error=(self._before.error_sum + self.tally.error_sum) / counted if counted else None,
            failed=self._before.failed + self.tally.failed,
            tokens_per_s=tokens_per_s,
            rollouts_per_s=rate,
            eta_s=(self.total - done) / rate if rate > 0 else None,
        )


def progress_of(run: Run) -> Progress:
    """The progress of a run that is just opened."""
    return Progress(total=run.expected, left=run.missing(), before=replace(run.journal.tally))
