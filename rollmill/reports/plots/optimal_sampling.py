"""Plot of q* samples along the answers: alpha, both KL divergences, the ratio of effective sample sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rollmill.reports.plots.bins import Numbers
from rollmill.reports.plots.canvas import (
    ACCEPT,
    FAINT,
    GUESS,
    INK,
    MAIN,
    OTHER,
    PAPER,
    draw_note,
    new_figure,
    style,
    to_png,
)
from rollmill.reports.plots.labels import counted, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (MAIN, OTHER, ACCEPT, GUESS, "#7d4cdb", "#8a6d00", "#0f8a8a", INK)
_BANDS = 4
"""Most files that are drawn with bands; of more, only the means."""
_WIDE_RATIO = 10.0
_FEW = 12
"""A curve of fewer points has a marker at each."""


class Along(Protocol):
    """A statistic by token position; all arrays have one length."""

    @property
    def position(self) -> Numbers: ...  # noqa: D102
    @property
    def mean(self) -> Numbers: ...  # noqa: D102
    @property
    def low(self) -> Numbers: ...  # noqa: D102
    @property
    def high(self) -> Numbers: ...  # noqa: D102


class SampleSeries(Protocol):
    """The samples of one file."""

    name: str
    samples: int

    def curve(self, name: str) -> Along | None:
        """Return `alpha`, `kl_theta`, `kl_t` or `ess_ratio` by position; None where it is not recorded."""


def draw_by_position(files: Sequence[SampleSeries]) -> bytes:
    """Return the plot as PNG bytes.

    It has at each position the mean over the samples of at least this length, and a band with the middle 80 % of them.
    """
    figure = new_figure(9, 9.5)
    figure.suptitle("q* along the answers: mean, and 10-90 % of the samples", color=INK, fontsize=12, x=0.01, ha="left")
    curves = [{name: file.curve(name) for name in ("alpha", "kl_theta", "kl_t", "ess_ratio")} for file in files]
    if not any(curve["alpha"] for curve in curves):
        draw_note(figure.add_subplot(), "No numbers by position: the files hold only means")
        return to_png(figure)
    weight, divergence, size = figure.subplots(3, 1, sharex=True)
    banded = len(files) <= _BANDS
    for file, curve, colour in zip(files, curves, cycle(_COLOURS), strict=False):
        _draw(weight, curve["alpha"], colour, banded, f"{label(file.name, 40)}, {counted(file.samples, 'sample')}")
        _draw(divergence, curve["kl_theta"], colour, banded, width=3.5, strength=0.5)
        _draw(divergence, curve["kl_t"], colour, False, width=1.4, dashes="--")
        _draw(size, curve["ess_ratio"], colour, banded)
    _finish(weight, "alpha, the weight of pi_theta", level=0.5)
    weight.set_ylim(0, 1)
    _finish(divergence, "KL divergence of q*, in nats (broad: to pi_theta, dashed: to pi_t; equal under KL symmetry)")
    divergence.set_ylim(bottom=0)
    _finish(size, "ESS ratio, theta / t (equal KLs do not make it 1)", level=1.0)
    _scale(size, [ratios for curve in curves if (ratios := curve["ess_ratio"])])
    size.set_xlabel("token of the answer", color=INK)
    return to_png(figure)


def _draw(
    axes: Axes,
    curve: Along | None,
    colour: str,
    banded: bool,
    name: str = "_",
    *,
    width: float = 1.8,
    strength: float = 1.0,
    dashes: str = "-",
) -> None:
    """Draw one curve.

    Args:
        axes: where to draw.
        curve: None draws nothing.
        colour: of line and band.
        banded: whether to draw the band.
        name: in the legend; `_`: not in the legend.
        width: of the line, in points.
        strength: opacity of the line, from 0 to 1.
        dashes: matplotlib's line style.
    """
    if curve is None:
        return
    if banded:
        axes.fill_between(curve.position, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    marker = "o" if len(curve.position) < _FEW else ""
    axes.plot(
        curve.position, curve.mean, color=colour, linewidth=width, alpha=strength, linestyle=dashes, marker=marker,
        markersize=3, label=name,
    )  # fmt: skip


def _finish(axes: Axes, title: str, level: float | None = None) -> None:
    style(axes)
    if level is not None:
        axes.axhline(level, color=FAINT, linewidth=1.5, zorder=0.5)
    axes.set_title(title, color=INK, fontsize=10, loc="left")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, loc="best", framealpha=0.9, facecolor=PAPER, labelcolor=INK)


def _scale(axes: Axes, curves: Sequence[Along]) -> None:
    """Scale the axis: logarithmic where ratios differ widely; never so narrow that noise looks like a difference."""
    ends = np.concatenate([side for curve in curves for side in (curve.low, curve.high)])
    if ends.size and ends.min() > 0 and ends.max() > _WIDE_RATIO * ends.min():
        axes.set_yscale("log")
        for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            ticks(lambda value, _: f"{value:g}")
        return
    axes.ticklabel_format(axis="y", useOffset=False)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.95), max(high, 1.05))
