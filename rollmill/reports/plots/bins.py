"""Bins of histograms of errors: their edges, and the end of the axis."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_MOST_BARS = 50
_FEWEST_BARS = 12


def axis_end(least: Numbers, errors: Numbers) -> float:
    """Return the end of the axis: the largest error, or less where a long tail would squeeze all other bars.

    The least errors per problem, which the plot is about, keep at least a fifth of the axis.
    """
    largest = float(max(least.max(), errors.max(initial=0.0)))
    inner = float(np.percentile(least, 99))
    outer = max(inner, float(np.percentile(errors, 97))) if errors.size else inner
    if inner > 0:
        outer = min(outer, 5 * inner)
    return largest if outer == 0 or largest <= 1.5 * outer else outer


def bin_edges(numbers: Numbers, upper: float, count: int) -> Numbers:
    """Return edges of equal bins from 0 to `upper`.

    If the numbers lie on a grid, such as whole numbers, all bins contain equally many of its points.

    Args:
        numbers: of shape (n,).
        upper: end of the axis.
        count: size of the sample, which the number of bins grows with.
    """
    most = min(max(int(2.5 * math.sqrt(count)), _FEWEST_BARS), _MOST_BARS)
    width = upper / most
    step = _grid_step(numbers[numbers <= upper])
    if step is None:
        return np.linspace(0.0, upper, most + 1)
    width = step * max(1, math.ceil(round(width / step, 6)))
    bars = math.floor((upper + step / 2) / width) + 1
    return np.arange(bars + 1, dtype=np.float64) * width - step / 2


def _grid_step(numbers: Numbers) -> float | None:
    """Return the step of the grid that all numbers lie on; None where there is none, or it is too fine for a plot."""
    scale = float(np.abs(numbers).max(initial=0.0))
    values = np.unique(np.round(numbers / scale, 9)) if scale else np.zeros(1)
    if values.size < 2:
        return None
    step = float(np.diff(values).min())
    on_grid = bool(np.allclose(values / step, np.round(values / step), atol=1e-3))
    return scale / round(1 / step) if on_grid and step > 1e-4 else None
