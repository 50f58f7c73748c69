"""Outcomes (success, no success, unknown) with the same colours and order in all plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from rollmill.reports.plots.bins import Numbers
from rollmill.reports.plots.canvas import INK, PAPER, draw_note, new_figure, style
from rollmill.reports.plots.histogram import LARGEST, Histogram, make_histogram
from rollmill.reports.plots.labels import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUCCESS, NO_SUCCESS, UNKNOWN = "#2f6db5", "#e8a04c", "#a9b2bb"  # distinct for colour-blind readers, and in grey
_LOOKS = {"successful": (True, SUCCESS), "not successful": (False, NO_SUCCESS), "no verdict": (None, UNKNOWN)}
_BARS_FOR = 256  # makes at most 40 bars


def roomy_figure(width: float, height: float) -> Figure:
    """Return a figure for several panels, with space between them and around."""
    figure = new_figure(width, height)
    figure.get_layout_engine().set(w_pad=0.16, h_pad=0.12)  # type: ignore[union-attr, call-arg]
    return figure


def outcome_legend(figure: Figure) -> None:
    """Add a legend of the colours, once for all panels."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, label=name) for name, (_, colour) in _LOOKS.items()]
    figure.legend(handles=patches, fontsize=9, loc="outside lower center", ncols=3, frameon=False, labelcolor=INK)


def draw_by_outcome(axes: Axes, table: pl.DataFrame, column: str, *, name: str, missing: str) -> None:
    """Draw a histogram of one column, its bars stacked by outcome.

    Args:
        axes: where to draw.
        table: the rollouts.
        column: the numeric column.
        name: label of the axis.
        missing: text where the column has no number.
    """
    counted = (
        table.lazy()
        .select(pl.col(column).cast(pl.Float64).clip(-LARGEST, LARGEST).alias("value"), "success")
        .filter(pl.col("value").is_finite())
        .group_by("value", "success")
        .len()
        .collect()
    )
    histogram = make_histogram(counted["value"].to_numpy(), counted["len"].to_numpy(), bars_for=_BARS_FOR)
    if histogram is None:
        draw_note(axes, missing)
        return
    style(axes)
    parts = {
        look: _part(histogram, counted.filter(pl.col("success").eq_missing(pl.lit(_LOOKS[look][0])))) for look in _LOOKS
    }
    _stack(axes, histogram, parts, is_integer=table.schema[column].is_integer())
    axes.set_ylabel("rollouts", color=INK)
    axes.set_xlabel(f"{name}{_hidden_note(histogram)}", color=INK)
    whole_numbers(axes.yaxis)


def whole_numbers(axis: Any) -> None:
    """Set ticks at whole numbers only, with thousands separators."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axis.set_major_formatter(lambda value, _: number(value))


def _part(histogram: Histogram, counted: pl.DataFrame) -> Numbers:
    edges = np.array(histogram.edges)
    return np.histogram(counted["value"].to_numpy(), edges, weights=counted["len"].to_numpy())[0]


def _stack(axes: Axes, histogram: Histogram, parts: dict[str, Numbers], *, is_integer: bool) -> None:
    """Draw stacked bars.

    Args:
        axes: where to draw.
        histogram: edges of the bars.
        parts: by outcome, the count of each bar, of shape (bars,).
        is_integer: whether ticks are whole numbers.
    """
    bars = len(histogram.counts)
    edges = np.array(histogram.edges)
    if histogram.values is not None:
        edges = np.arange(bars + 1) - 0.5
        axes.set_xticks(range(bars), [number(value) for value in histogram.values])
        if bars > 6:
            axes.tick_params(axis="x", rotation=45)
        margin = 1 if bars == 1 else 0  # a single bar would fill the plot
        axes.set_xlim(-0.7 - margin, bars - 0.3 + margin)
        axes.grid(visible=False, axis="x")
    else:
        axes.set_xlim(edges[0], edges[-1])
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.locator_params(axis="x", nbins=6, integer=is_integer)
    bottom = np.zeros(bars)
    width = np.diff(edges) * (0.8 if histogram.values is not None else 1.0)
    for name, counts in parts.items():
        middles = (edges[:-1] + edges[1:]) / 2
        axes.bar(middles, counts, width, bottom, color=_LOOKS[name][1], edgecolor=PAPER, linewidth=0.4)
        bottom += counts
    axes.set_ylim(0, max(bottom.max() * 1.06, 1.0))


def _hidden_note(histogram: Histogram) -> str:
    hidden = histogram.below + histogram.above
    return f" ({hidden:,} beyond the axis not shown)" if hidden else ""
