"""Plot `sampling_curves.png`: accuracy with k rollouts of a problem, by the method that selects the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rollmill.reports.plots.canvas import (
    ACCEPT,
    GUESS,
    INK,
    MAIN,
    OTHER,
    draw_note,
    new_figure,
    per_cent,
    style,
    to_png,
)
from rollmill.reports.plots.labels import label
from rollmill.statistics.sampling_curves import SamplingCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS = ((MAIN, "o"), (OTHER, "s"), (ACCEPT, "^"), (GUESS, "D"), ("#7a4fb5", "v"), (INK, "X"))
_SHIFT = 0.04


def draw_sampling_curves(curves: Sequence[SamplingCurve], *, title: str) -> bytes:
    """Return the plot as PNG bytes: a line for each curve, with 95 % intervals; marks of one k are side by side."""
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    known = [curve for curve in curves if any(point.value is not None for point in curve.points)]
    axes.set_title(label(title, 80), color=INK, fontsize=11, loc="left")
    if not known:
        draw_note(axes, "No rollout was judged")
        return to_png(figure)
    style(axes)
    axes.set_xscale("log", base=2)
    for index, curve in enumerate(known):
        _draw_curve(axes, curve, index, 2 ** (_SHIFT * (index - (len(known) - 1) / 2)))
    ks = sorted({point.k for curve in known for point in curve.points if point.value is not None})
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_xlim(ks[0] / 1.25, ks[-1] * 1.25)
    highest = max(point.high or point.value or 0.0 for curve in known for point in curve.points)
    axes.set_ylim(0, min(1.03, max(0.05, highest * 1.1)))
    axes.yaxis.set_major_formatter(per_cent)
    axes.set_xlabel("k rollouts of a problem", color=INK)
    axes.set_ylabel("problems answered rightly", color=INK)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False, labelcolor=INK)
    return to_png(figure)


def _draw_curve(axes: Axes, curve: SamplingCurve, index: int, shift: float) -> None:
    """Draw one curve with its intervals.

    Args:
        axes: where to draw.
        curve: the curve.
        index: of the curve, which selects colour and marker.
        shift: factor of k that keeps the intervals of several curves apart.
    """
    colour, marker = _LOOKS[index % len(_LOOKS)]
    points = [(point, point.value) for point in curve.points if point.value is not None]
    down = [0.0 if point.low is None else max(value - point.low, 0.0) for point, value in points]
    up = [0.0 if point.high is None else max(point.high - value, 0.0) for point, value in points]
    across, values = [point.k * shift for point, _ in points], [value for _, value in points]
    axes.errorbar(
        across,
        values,
        yerr=[down, up],
        label=curve.name,
        color=colour,
        marker=marker,
        capsize=3,
        linewidth=2,
        elinewidth=1,
        clip_on=False,
    )
