"""Intervals: how far a share could be from what was counted."""

from __future__ import annotations

from math import sqrt

import numpy as np

from rollmill.statistics.summary import Numbers

RESAMPLES = 10_000
LEVEL = 0.95

_Z = 1.959963984540054
"""Of a 95 % interval of the normal distribution."""
_AT_ONCE = 2_000_000
_FEWEST_RESAMPLES, _MOST_RESAMPLES, _MOST_DRAWS = 200, 2_000, 20_000_000


def wilson_interval(successes: float, count: float) -> tuple[float, float] | None:
    """Return the 95 % score interval of a share of independent tries (Wilson 1927, "Probable inference").

    Returns None of no try.

    Rollouts of one problem are alike, so the interval of several per problem is too narrow.
    """
    if count <= 0:
        return None
    share = successes / count
    squared = _Z * _Z / count
    middle = (share + squared / 2) / (1 + squared)
    reach = _Z / (1 + squared) * sqrt(share * (1 - share) / count + squared / (4 * count))
    return (0.0 if successes == 0 else max(0.0, middle - reach)), (
        1.0 if successes == count else min(1.0, middle + reach)
    )


def bootstrap_interval(values: Numbers, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: One number per problem, at least one: the problem is the unit that is drawn.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    rounds = max(1, _AT_ONCE // len(values))
    means = np.concatenate(
        [
            rng.choice(values, size=(min(rounds, RESAMPLES - done), len(values))).mean(axis=1)
            for done in range(0, RESAMPLES, rounds)
        ]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def share_intervals(values: Numbers, seed: int = 0) -> list[tuple[float, float] | None]:
    """Return the 95 % interval of each column's mean, by one bootstrap over the rows; None of an empty column.

    Rows are problems, columns shares from 0 to 1 of each, NaN where a problem has none. All columns share their
    resamples: 2,000 of them, fewer from 10,000 problems on. Where all numbers of a column are equal, resampling sees
    no noise, and the interval is Wilson's with the problems as tries: no share from 0 to 1 varies more than a try.
    """
    known = ~np.isnan(values)
    counts, filled = known.sum(axis=0), np.where(known, values, 0.0)
    means = _resampled_means(filled, known.astype(np.float64), seed) if values.size else np.zeros((1, len(counts)))
    intervals: list[tuple[float, float] | None] = []
    for column, count in enumerate(counts.tolist()):
        here = filled[known[:, column], column]
        if not count or np.ptp(here) == 0:
            intervals.append(wilson_interval(float(here.sum()), count))
            continue
        resampled = means[~np.isnan(means[:, column]), column]
        low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        mean = float(here.mean())
        intervals.append((min(float(low), mean), max(float(high), mean)))
    return intervals


def _resampled_means(filled: Numbers, known: Numbers, seed: int) -> Numbers:
    """Return a row of means for every resample; NaN where a resample holds no problem that has the column."""
    rows = len(filled)
    resamples = min(max(_MOST_DRAWS // rows, _FEWEST_RESAMPLES), _MOST_RESAMPLES)
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(0, resamples, step := max(1, min(resamples, _AT_ONCE // rows))):
        drawn = rng.integers(0, rows, size=(step, rows)) + np.arange(step)[:, None] * rows
        times = np.bincount(drawn.ravel(), minlength=step * rows).reshape(step, rows).astype(np.float64)
        totals = times @ known
        parts.append(np.divide(times @ filled, totals, out=np.full(totals.shape, np.nan), where=totals > 0))
    return np.concatenate(parts)[:resamples]
