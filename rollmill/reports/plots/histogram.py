"""Histograms of numbers of any sign: a bar for each of a few values, else equal bins that ignore outliers."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rollmill.reports.plots.bins import Numbers, bin_edges

FEW_VALUES = 12
"""Up to this many distinct values, each gets its own bar."""
LARGEST = 1e300
"""Larger numbers are drawn, and averaged, as this: sums would overflow."""
_USUAL_BARS = 64  # makes at most 20 bars, as many as a terminal shows at a glance


class Histogram(BaseModel):
    """The counts of numbers between edges. `sum(counts) + below + above` is the number of all."""

    model_config = ConfigDict(frozen=True)

    edges: list[float] = Field(description="one more than bars, ascending; the last bar includes its upper edge")
    counts: list[int]
    values: list[float] | None = None
    """The values, where every bar is one distinct value; else None."""
    below: int = 0
    """Numbers below the first edge: a long tail would squeeze all other bars."""
    above: int = 0


def make_histogram(values: Numbers, counts: Numbers | None = None, *, bars_for: int = _USUAL_BARS) -> Histogram | None:
    """Return the histogram of finite `values`, of shape (n,); None where there are none.

    `counts`, of shape (n,), tells how often each value counts (None: once). `bars_for` is the size of the sample that
    the number of bars is chosen for.
    """
    if values.size == 0:
        return None
    numbers = np.clip(np.asarray(values, dtype=np.float64), -LARGEST, LARGEST) + 0.0  # -0 is 0
    weights = np.ones(numbers.size) if counts is None else np.asarray(counts, dtype=np.float64)
    distinct = np.unique(numbers)
    if distinct.size <= FEW_VALUES:
        times = np.bincount(np.searchsorted(distinct, numbers), weights=weights)
        edges = _edges_between(distinct)
        return Histogram(edges=edges.tolist(), counts=times.astype(int).tolist(), values=distinct.tolist())
    edges = _equal_edges(numbers, weights, bars_for)
    inside = np.histogram(numbers, edges, weights=weights)[0]
    return Histogram(
        edges=edges.tolist(),
        counts=np.round(inside).astype(int).tolist(),
        below=int(weights[numbers < edges[0]].sum()),
        above=int(weights[numbers > edges[-1]].sum()),
    )


def usual_range(numbers: Numbers, weights: Numbers | None = None) -> tuple[float, float]:
    """Return the begin and end of an axis of these numbers: the least and largest, or less where a tail is long.

    A tail is long if it reaches more than half as far again as the middle 98 % of the numbers, or ten times as far as
    the middle half of them.
    """
    order = np.argsort(numbers)
    ordered = numbers[order]
    share = np.cumsum(np.ones(numbers.size) if weights is None else weights[order])
    indexes = np.minimum(np.searchsorted(share / share[-1], [0.01, 0.25, 0.75, 0.99]), numbers.size - 1)
    first, low, high, last = ordered[indexes].tolist()
    if first == last:
        return float(ordered[0]), float(ordered[-1])
    begin, end = first - (last - first) / 2, last + (last - first) / 2
    if low < high:
        begin, end = max(begin, low - 10 * (high - low)), min(end, high + 10 * (high - low))
    inside = ordered[(ordered >= begin) & (ordered <= end)]
    return float(inside[0]), float(inside[-1])


def _edges_between(distinct: Numbers) -> Numbers:
    """Return edges halfway between neighbours."""
    if distinct.size == 1:
        return np.array([distinct[0] - 0.5, distinct[0] + 0.5])
    middles = distinct[:-1] / 2 + distinct[1:] / 2
    first, last = distinct[0] - (middles[0] - distinct[0]), distinct[-1] + (distinct[-1] - middles[-1])
    return np.concatenate([[first], middles, [last]])


def _equal_edges(numbers: Numbers, weights: Numbers, bars_for: int) -> Numbers:
    low, high = usual_range(numbers, weights)
    shown = numbers[(numbers >= low) & (numbers <= high)]
    edges = bin_edges(shown - low, high - low, bars_for)
    on_grid = edges[0] < 0  # bins on a grid begin half a step before the first point
    edges = edges + low if on_grid else _round_edges(low, high, edges.size - 1)
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    edges = np.unique(edges)  # edges may coincide where numbers differ by rounding only
    return edges if edges.size > 1 else np.array([low, np.nextafter(low, np.inf)])


def _round_edges(low: float, high: float, most: int) -> Numbers:
    """Return edges at multiples of 1, 2, 2.5 or 5 times a power of ten, for at most `most` + 2 bins."""
    width = (high - low) / most
    power = 10.0 ** np.floor(np.log10(width)) if width > 1e-290 else 0.0
    if power == 0:
        return np.array([low, high])
    step = next(float(power * part) for part in (1.0, 2.0, 2.5, 5.0, 10.0) if power * part >= width)
    first, last = np.floor(low / step), np.ceil(high / step)
    bars = int(min(last - first, most + 2))
    edges: Numbers = np.round((first + np.arange(bars + 1)) * step / power, 6) * power
    return edges
