"""Plot `comparison.png`: several models on the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rollmill.reports.plots.canvas import GUESS, INK, PAPER, draw_note, new_figure, per_cent, plain, style, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOG_SCALE_FROM_RATIO = 30.0
"""Ratio of greatest to least value from which the axis is logarithmic."""


class ModelScores(NamedTuple):
    """The scores of one model on the compared problems; None for unknown ones."""

    name: str
    pass_at_k: Sequence[tuple[int, float | None]]
    mean_error: float | None
    """Mean distance of answers to the ground truth, over problems."""
    mean_least_error: float | None
    """Mean over problems of the least error among a problem's rollouts."""
    guess_baseline: float | None = None
    """The mean least error of as many random guesses."""


def draw_comparison(curves: Sequence[ModelScores], *, title: str) -> bytes:
    """Return the plot as PNG bytes.

    It shows pass@k on the left, mean error and mean least error on the right where there are any.
    """
    with_errors = any(curve.mean_error is not None for curve in curves)
    figure = new_figure(11 if with_errors else 7, max(4.5, 1.8 + 0.5 * len(curves)))
    figure.suptitle(plain(title), color=INK, fontsize=12, x=0.01, ha="left")
    colours = _colours(len(curves))
    if not with_errors:
        _draw_pass_at_k(figure.add_subplot(), curves, colours)
    else:
        left, right = figure.subplots(1, 2)
        _draw_pass_at_k(left, curves, colours)
        _draw_errors(right, curves, colours)
    return to_png(figure)


def _draw_pass_at_k(axes: Axes, curves: Sequence[ModelScores], colours: Sequence[Any]) -> None:
    drawn = False
    ks: set[int] = set()
    style(axes)
    axes.set_xscale("log", base=2)
    for curve, colour in zip(curves, colours, strict=True):
        points = [(k, value) for k, value in curve.pass_at_k if value is not None]
        if points:
            drawn = True
            ks.update(k for k, _ in points)
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                marker="o",
                linewidth=2,
                clip_on=False,
                label=plain(curve.name, 32),
            )
    if not drawn:
        draw_note(axes, "No pass@k: no rollout was judged")
        return
    axes.set_xticks(sorted(ks), [str(k) for k in sorted(ks)])
    axes.minorticks_off()
    axes.set_ylim(0, min(1.05, max(0.05, axes.get_ylim()[1] * 1.1)))
    axes.yaxis.set_major_formatter(per_cent)
    axes.set_xlabel("k rollouts", color=INK)
    axes.set_title("pass@k: share of problems with a success", color=INK, fontsize=10, loc="left")
    axes.legend(fontsize=8, loc="best", framealpha=0.9, facecolor=PAPER, labelcolor=INK)


def _draw_errors(axes: Axes, curves: Sequence[ModelScores], colours: Sequence[Any]) -> None:
    style(axes)
    values = [x for curve in curves for x in (curve.mean_error, curve.mean_least_error, curve.guess_baseline)]
    known = [x for x in values if x is not None and x > 0]  # a logarithmic axis has no 0
    logarithmic = bool(known) and max(known) > _LOG_SCALE_FROM_RATIO * min(known)
    # Beyond the values there is room for the numbers beside the bars.
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(min(known) / 3, max(known) * 6)
    else:
        axes.set_xlim(0, max(known, default=1.0) * 1.22)
    for row, (curve, colour) in enumerate(zip(curves, colours, strict=True)):
        _bar(axes, row - 0.19, curve.mean_error, {"fill": False, "edgecolor": colour, "linewidth": 2})
        _bar(axes, row + 0.19, curve.mean_least_error, {"color": colour})
        if curve.guess_baseline:
            axes.plot([curve.guess_baseline] * 2, [row - 0.42, row + 0.42], color=GUESS, linestyle="--", linewidth=2)
    axes.set_yticks(range(len(curves)), [plain(curve.name, 32) for curve in curves])
    axes.set_ylim(len(curves) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("error" + (" (logarithmic)" if logarithmic else ""), color=INK)
    axes.set_title("outline: mean error, filled: mean least error", color=INK, fontsize=10, loc="left")
    if any(curve.guess_baseline for curve in curves):
        axes.plot([], [], color=GUESS, linestyle="--", linewidth=2, label="guessing's mean least error")
        axes.legend(fontsize=8, loc="lower right", framealpha=0.9, facecolor=PAPER, labelcolor=INK)


def _bar(axes: Axes, y: float, value: float | None, look: dict[str, Any]) -> None:
    """Draw a horizontal bar with its value.

    Args:
        axes: where to draw.
        y: position of the bar.
        value: its length; None writes "none".
        look: keyword arguments of matplotlib's `barh`.
    """
    if value is None:
        axes.text(axes.get_xlim()[0], y, " none", va="center", fontsize=8, color=INK)
        return
    axes.barh(y, value, 0.36, **look)
    axes.annotate(
        f"{value:.4g}",
        (max(value, axes.get_xlim()[0]), y),  # 0 is left of a logarithmic axis
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=INK,
    )


def _colours(count: int) -> list[Any]:
    """Return colours from light to dark: where the models are successive checkpoints, these appear in order."""
    import matplotlib

    return list(matplotlib.colormaps["viridis"](np.linspace(0.75, 0.0, count))) if count else []
