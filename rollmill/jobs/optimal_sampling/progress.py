"""How far a call is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from rollmill.generation.run import Run
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.optimal_sampling.shards import Extent
from rollmill.statistics.throughput import RateMeter, format_seconds


class SamplingSnapshot(NamedTuple):
    """A call at one moment."""

    done: int
    """Samples, those included that earlier calls drew."""
    total: int
    made: int
    """By this call."""
    mean_alpha: float | None
    """Over the tokens of this call."""
    failed: int
    tokens_per_s: float
    eta_s: float | None
    """Seconds to the end at the present rate; None while there is none."""

    def describe(self) -> str:
        """The snapshot in one line."""
        samples = f"{self.done:,}/{self.total:,} samples"
        if not self.made and self.done < self.total:
            return f"{samples}, loading models and drawing the first shard"
        alpha = "-" if self.mean_alpha is None else f"{self.mean_alpha:.3f}"
        left = "-" if self.eta_s is None else format_seconds(self.eta_s)
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{samples}, mean alpha {alpha}, {self.tokens_per_s:.0f} tokens/s, {left} left{failed}"


class SamplingProgress:
    """Counts a call's samples as they are journaled. `left` of `total` are still to be drawn when this begins."""

    def __init__(self, *, total: int, left: int) -> None:
        self.total, self.left = total, left
        self.made = self.failed = self._tokens = self._weighed = 0
        self._alpha = 0.0
        self._recent = RateMeter(time.monotonic(), 0, 0)

    def observe(self, row: Mapping[str, Any]) -> None:
        """One more row is journaled."""
        tokens = row["usage"]["completion_tokens"]
        self.made += 1
        self.failed += row["error"] is not None
        self._tokens += tokens
        alpha = row["metadata"].get("diagnostics", {}).get("alpha_mean")
        if alpha is not None:
            self._alpha += alpha * tokens
            self._weighed += tokens
        self._recent.mark(time.monotonic(), self.made, self._tokens)

    def snapshot(self) -> SamplingSnapshot:
        """The call as it is now; rates are those of the last minute."""
        rate, tokens_per_s = self._recent.rates(time.monotonic(), self.made, self._tokens)
        return SamplingSnapshot(
            done=self.total - self.left + self.made,
            total=self.total,
            made=self.made,
            mean_alpha=self._alpha / self._weighed if self._weighed else None,
            failed=self.failed,
            tokens_per_s=tokens_per_s,
            eta_s=(self.left - self.made) / rate if rate > 0 else None,
        )


def sampling_progress(run: Run, parameters: OptimalSampling) -> SamplingProgress:
    """The progress of a call whose run is just opened."""
    extent = Extent(parameters)
    wanted = [bool(run.wanted(problem)) for problem in run.problems() if problem in extent]
    return SamplingProgress(total=len(wanted), left=sum(wanted))
