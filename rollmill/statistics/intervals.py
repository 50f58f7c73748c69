"""Confidence intervals of shares and means: Wilson's, and by bootstrap."""

from __future__ import annotations

from math import sqrt

import numpy as np

from rollmill.statistics.summary import Numbers

RESAMPLES = 10_000
LEVEL = 0.95

_Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for a two-sided 95 % interval."""
_AT_ONCE = 2_000_000
"""Numbers drawn in one NumPy call, which bounds memory."""
_FEWEST_RESAMPLES, _MOST_RESAMPLES, _MOST_DRAWS = 200, 2_000, 20_000_000


def wilson_interval(successes: float, count: float) -> tuple[float, float] | None:
    """Return the 95 % score interval of a share of independent trials (Wilson 1927, "Probable inference").

    Returns None for 0 trials. Rollouts of one problem are correlated, so counting each as a trial gives an interval
    that is too narrow.
    """
    if count <= 0:
        return None
    share = successes / count
    squared = _Z * _Z / count
    middle = (share + squared / 2) / (1 + squared)
    reach = _Z / (1 + squared) * sqrt(share * (1 - share) / count + squared / (4 * count))
    # Rounding would leave the ends of 0 of n and n of n slightly inside of [0, 1].
    low = 0.0 if successes == 0 else max(0.0, middle - reach)
    high = 1.0 if successes == count else min(1.0, middle + reach)
    return low, high


def bootstrap_interval(values: Numbers, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: One number per problem, at least one; problems are what is resampled.
        seed: Seed of the resampling.
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
    """Return the 95 % interval of each column's mean, by one bootstrap over the rows; None for an empty column.

    Rows are problems; columns are shares from 0 to 1, NaN where a problem has no value. All columns use the same
    resamples: 2,000, fewer from 10,000 problems on. Where all numbers of a column are equal, every resample is the
    same, and the interval is Wilson's with each problem as a trial: no share from 0 to 1 has more variance than that.
    """
    known = ~np.isnan(values)
    counts, filled = known.sum(axis=0), np.where(known, values, 0.0)
    means = _resampled_means(filled, known.astype(np.float64), seed) if values.size else np.zeros((1, len(counts)))
    intervals: list[tuple[float, float] | None] = []
    for column, count in enumerate(counts.tolist()):
        shares = filled[known[:, column], column]
        if not count or np.ptp(shares) == 0:
            intervals.append(wilson_interval(float(shares.sum()), count))
            continue
        resampled = means[~np.isnan(means[:, column]), column]
        low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        mean = float(shares.mean())
        # Few problems make a skewed bootstrap, whose percentiles may leave out the mean itself.
        intervals.append((min(float(low), mean), max(float(high), mean)))
    return intervals


def _resampled_means(filled: Numbers, known: Numbers, seed: int) -> Numbers:
    """Return the column means of each resample, [resamples, columns]; NaN where no drawn problem has the column.

    Both arguments are [problems, columns]: the values with 0 for NaN, and 1.0 where there is a value.
    """
    rows = len(filled)
    resamples = min(max(_MOST_DRAWS // rows, _FEWEST_RESAMPLES), _MOST_RESAMPLES)
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(0, resamples, step := max(1, min(resamples, _AT_ONCE // rows))):
        # Row i of the matrix counts how often each problem was drawn for resample i: sums become one product.
        drawn = rng.integers(0, rows, size=(step, rows)) + np.arange(step)[:, None] * rows
        times = np.bincount(drawn.ravel(), minlength=step * rows).reshape(step, rows).astype(np.float64)
        totals = times @ known
        parts.append(np.divide(times @ filled, totals, out=np.full(totals.shape, np.nan), where=totals > 0))
    return np.concatenate(parts)[:resamples]
