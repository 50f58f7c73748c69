"""Summary statistics: mean, standard deviation and percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Numbers = NDArray[np.float64]

LARGE = 1e150
"""Above this, squares and sums could leave the range of floats: the numbers are scaled first."""


class SummaryStats(BaseModel):
    """Summary statistics. Percentiles interpolate linearly; `std` is the population's (divided by n)."""

    model_config = ConfigDict(frozen=True)

    count: int
    mean: float = Field(allow_inf_nan=False)
    median: float = Field(allow_inf_nan=False)
    std: float = Field(allow_inf_nan=False)
    min: float = Field(allow_inf_nan=False)
    max: float = Field(allow_inf_nan=False)
    p25: float = Field(allow_inf_nan=False)
    p75: float = Field(allow_inf_nan=False)
    p90: float = Field(allow_inf_nan=False)
    p95: float = Field(allow_inf_nan=False)


def summarize(numbers: Numbers) -> SummaryStats | None:
    """Return the summary statistics of finite numbers; None if there are none."""
    if numbers.size == 0:
        return None
    scale = _scale(float(np.abs(numbers).max()))
    scaled = numbers / scale
    least, most = float(numbers.min()), float(numbers.max())
    # Interpolation and scaling round: keep percentiles within the range, and in order.
    percentiles = np.clip(np.percentile(scaled, [25, 50, 75, 90, 95]) * scale, least, most)
    p25, median, p75, p90, p95 = np.maximum.accumulate(percentiles).tolist()
    return SummaryStats(
        count=numbers.size,
        mean=min(max(float(scaled.mean()) * scale, least), most),
        median=median,
        std=float(scaled.std()) * scale,
        min=least,
        max=most,
        p25=p25,
        p75=p75,
        p90=p90,
        p95=p95,
    )


def mean(numbers: Sequence[float]) -> float | None:
    """Return the mean of finite numbers; None if there are none."""
    if not numbers:
        return None
    scale = _scale(max(map(abs, numbers)))
    return fsum(number / scale for number in numbers) / len(numbers) * scale


def median(numbers: Sequence[float]) -> float | None:
    """Return the median of finite numbers; None if there are none."""
    if not numbers:
        return None
    ordered = sorted(numbers)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else low / 2 + high / 2  # low + high could overflow


def _scale(largest: float) -> float:
    return largest if largest > LARGE else 1.0
