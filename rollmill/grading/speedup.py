"""Estimates a speedup from interleaved pairs of runs, with the confidence interval of their mean ratio."""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rollmill.grading.evaluation import SpeedupDetails, TimedPair

LEVEL = 0.95

SEED_BITS = 53
"""Bits that every JSON parser preserves in a number."""
_EXPANSION = (
    ((1, 1), 4),
    ((3, 16, 5), 96),
    ((-15, 17, 19, 3), 384),
    ((-945, -1920, 1482, 776, 79), 92160),
)


class PairCount(BaseModel):
    """The number of measured pairs of runs. One warm-up pair comes before them, whose times do not count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least: int = Field(default=5, ge=3)
    most: int = Field(default=15, ge=3)
    narrow: float = Field(default=0.04, gt=0)
    """Stop once the half width of the 95% interval, in logarithms, is at most this plus a fifth of the mean's distance
    from 1: the smaller the difference, the more precisely it is measured, whichever side of 1 it is on. Checking after
    every pair costs some precision: pure noise is called faster in 2.5 to 4 cases of a hundred."""
    seconds: float = Field(default=180.0, gt=0)
    """Stop after this time, but not before `least` pairs."""

    @model_validator(mode="after")
    def _ordered(self) -> PairCount:
        if self.most < self.least:
            raise ValueError(f"most ({self.most}) is less than least ({self.least})")
        return self


class Interval(NamedTuple):
    """Geometric mean of ratios, and the bounds of its 95% interval."""

    mean: float
    low: float
    high: float

    def settled(self, pairs: PairCount) -> bool:
        """Return whether it is narrow enough (`PairCount.narrow`)."""
        half = math.log(self.high / self.mean)
        return half <= pairs.narrow + 0.2 * abs(math.log(self.mean))


def interval(ratios: Sequence[float]) -> Interval:
    """Return the geometric mean of at least three positive ratios, and its interval by Student's t on their logarithms.

    Georges, Buytaert and Eeckhout, Statistically Rigorous Java Performance Evaluation (OOPSLA 2007), section 3.2,
    for few measurements; of logarithms, since a ratio and its inverse are to weigh the same.
    """
    logs = [math.log(ratio) for ratio in ratios]
    mean, half = fmean(logs), student_quantile(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def student_quantile(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t, within 1% from two degrees of freedom on and 0.1% from four on.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5: polynomials in the normal quantile.
    """
    normal = NormalDist().inv_cdf((1 + LEVEL) / 2)
    value = normal
    for power, (factors, divisor) in enumerate(_EXPANSION, start=1):
        terms = sum(factor * normal ** (2 * degree + 1) for degree, factor in enumerate(factors))
        value += terms / divisor / freedom**power
    return value


Measure = Callable[[int, bool], tuple[float, float]]
"""Runs both versions on the inputs of a seed, the changed one first if the flag is set: seconds before and after."""


def compare(
    measure: Measure, pairs: PairCount, order: random.Random, charge_s: Callable[[], float] = lambda: 0.0
) -> SpeedupDetails:
    """Run pairs until the interval is narrow, the maximum is reached, or time is up; exceptions of `measure` pass.

    Args:
        measure: Runs one pair.
        pairs: Number of pairs.
        order: Decides which version runs first.
        charge_s: Returns the seconds to add to the time after the change, of every pair so far.
    """
    ends = time.monotonic() + pairs.seconds
    measure(_new_seed(), False)  # warm-up: the first run fills caches and compiles modules
    measured: list[tuple[int, float, float]] = []
    while True:
        seed = _new_seed()
        # In random order, so that warm caches or a hot CPU after the first run favour neither version.
        measured.append((seed, *measure(seed, order.random() < 0.5)))
        if len(measured) < pairs.least:
            continue
        comparisons = _charged(measured, charge_s())
        estimate = interval([comparison.speedup for comparison in comparisons])
        if estimate.settled(pairs) or len(comparisons) >= pairs.most or time.monotonic() > ends:
            return _details(estimate, comparisons)


def _charged(measured: Sequence[tuple[int, float, float]], charge_s: float) -> list[TimedPair]:
    return [
        TimedPair(seed=seed, before_s=before, after_s=after + charge_s, speedup=before / (after + charge_s))
        for seed, before, after in measured
    ]


def _details(estimate: Interval, comparisons: list[TimedPair]) -> SpeedupDetails:
    speedups = [comparison.speedup for comparison in comparisons]
    return SpeedupDetails(
        average_speedup=estimate.mean,
        min_speedup=min(speedups),
        max_speedup=max(speedups),
        low=estimate.low,
        high=estimate.high,
        total_comparisons=len(comparisons),
        comparisons=comparisons,
    )


def _new_seed() -> int:
    return secrets.randbits(SEED_BITS)
