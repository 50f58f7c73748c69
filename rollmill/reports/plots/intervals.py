"""Intervals: how far a share could be from what was counted."""

from __future__ import annotations

from math import sqrt

_Z = 1.959963984540054
"""Of a 95 % interval of the normal distribution."""


def wilson_interval(successes: float, count: float) -> tuple[float, float] | None:
    """The 95 % score interval of a share of independent tries (Wilson 1927, "Probable inference"); None of no try.

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
