"""Progress of a run: counts, rates, and the estimated time to its end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from rollmill.generation.run import Run
from rollmill.generation.tally import RolloutOutcome, Tally
from rollmill.statistics.throughput import RateMeter, format_seconds


class RolloutSnapshot(NamedTuple):
    """The progress of a run at one moment."""

    done: int
    total: int
    success_rate: float | None
    """Share of the judged rollouts; None where nothing is judged."""
    mean_error: float | None
    """Mean distance to the ground truths; None where there is none."""
    mean_alpha: float | None
    """The policy's weight in q* sampling, averaged over tokens; None elsewhere."""
    failed: int
    tokens_per_s: float
    rollouts_per_s: float
    eta_s: float | None
    """Seconds to the end at the current rate; None while the rate is 0."""
    noun: str = "rollouts"
    """Plural noun for rollouts in this job."""
    slots: int | None = None
    """The best concurrency found so far, summed over workers; None where concurrency is fixed."""

    def describe(self) -> str:
        """Return the snapshot in one line."""
        quality = [
            *([] if self.success_rate is None else [f"success {self.success_rate:.1%}"]),
            *([] if self.mean_error is None else [f"mean error {self.mean_error:.3g}"]),
        ]
        if self.mean_alpha is not None:  # q* samples have no verdicts
            quality = [f"mean alpha {self.mean_alpha:.3f}"]
        remaining_time = "-" if self.eta_s is None else format_seconds(self.eta_s)
        speed = [f"{self.tokens_per_s:.0f} tokens/s", f"{remaining_time} left"]
        failed = [f"{self.failed:,} failed"] if self.failed else []
        speed += [] if self.slots is None else [f"{self.slots:,} at a time"]
        return ", ".join([f"{self.done:,}/{self.total:,} {self.noun}", *quality, *speed, *failed])


class Progress:
    """Counts a run's rollouts as they are journaled. Written by the engine's thread, read by any.

    Args:
        total: Rollouts of the complete run.
        left: Rollouts that were missing when this call began.
        before: Tally of the rollouts that were journaled when this call began.
        noun: Plural noun for rollouts in this job, for display.
    """

    def __init__(self, *, total: int, left: int, before: Tally, noun: str = "rollouts") -> None:
        self.total = total
        self._noun = noun
        self._slots: dict[str, int] = {}
        """The best concurrency that each worker has found, by worker."""
        self.left = left
        self._before = before
        self.tally = Tally()
        """Rollouts of this call only."""
        self.start()

    def start(self) -> None:
        """Start the clock that rates are measured with."""
        self._started = time.monotonic()
        self._recent = RateMeter(self._started, 0, 0)
        self._last_s = 0.0

    def observe(self, outcome: RolloutOutcome) -> None:
        """Count one more journaled rollout."""
        self.tally.add(outcome)
        now = time.monotonic()
        self._last_s = now - self._started
        self._recent.mark(now, self.tally.done, self.tally.completion_tokens)

    def note_slots(self, worker: str, slots: int | None) -> None:
        """Record the best concurrency that a worker has found; None where concurrency is fixed."""
        if slots is not None:
            self._slots[worker] = slots

    @property
    def slots(self) -> int | None:
        """Return the best concurrency found, summed over workers; None where none has searched."""
        return sum(self._slots.copy().values()) or None

    @property
    def tokens_per_s(self) -> float | None:
        """Return completion tokens per second from the start to the last rollout; None before the first one."""
        return self.tally.completion_tokens / self._last_s if self._last_s > 0 else None

    def snapshot(self) -> RolloutSnapshot:
        """Return the current progress; rates are averages over the last minute."""
        rate, tokens_per_s = self._recent.rates(time.monotonic(), self.tally.done, self.tally.completion_tokens)
        done = self.total - self.left + self.tally.done
        judged = self._before.ok + self._before.unparseable + self.tally.ok + self.tally.unparseable
        counted = self._before.errors_counted + self.tally.errors_counted
        weighed = self._before.alpha_tokens + self.tally.alpha_tokens
        return RolloutSnapshot(
            done=done,
            total=self.total,
            success_rate=(self._before.success + self.tally.success) / judged if judged else None,
            mean_error=(self._before.error_sum + self.tally.error_sum) / counted if counted else None,
            mean_alpha=(self._before.alpha_sum + self.tally.alpha_sum) / weighed if weighed else None,
            failed=self._before.failed + self.tally.failed,
            tokens_per_s=tokens_per_s,
            rollouts_per_s=rate,
            eta_s=(self.total - done) / rate if rate > 0 else None,
            noun=self._noun,
            slots=self.slots,
        )


def progress_of(run: Run) -> Progress:
    """Return a progress counter for a run that was just opened."""
    return Progress(total=run.expected, left=run.missing(), before=replace(run.journal.tally))
