"""Compare a distance with its tolerance."""

from __future__ import annotations

import math


def is_accepted(distance: float, accept_error: float, magnitude: float) -> bool:
    """Return whether `distance` <= `accept_error`, with a tolerance for the rounding of decimals to binary floats.

    3.4 - 3.3 is 0.10000000000000009 in floats, yet must pass `accept_error` 0.1. Both numbers, their difference and
    the limit are each rounded to the nearest float, which adds up to less than 4 units in the last place of
    `magnitude`, the larger of the two numbers' absolute values. `accept_error` 0 requires the same number.
    """
    if accept_error == 0:
        return distance == 0
    return distance <= accept_error + 4 * math.ulp(magnitude)
