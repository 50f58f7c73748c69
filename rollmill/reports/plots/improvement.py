"""Plot `improvement.png`: held-out accuracy of the base model and after each round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rollmill.reports.plots.canvas import ACCEPT, FAINT, INK, MAIN, OTHER, new_figure, per_cent, plain, style, to_png


class Mark(NamedTuple):
    """The accuracy of one policy with its interval, between 0 and 1."""

    name: str
    mean: float
    low: float
    high: float
    kept: bool


def draw_improvement(marks: Sequence[Mark], *, title: str, subtitle: str, reference: Mark | None = None) -> bytes:
    """Return the plot as PNG bytes: a mark with an interval for each policy, and a line for the reference.

    Args:
        marks: the base, then the policy of each round.
        title: first line above the plot.
        subtitle: second line.
        reference: a policy to compare with, drawn as a line and a band.
    """
    figure = new_figure(max(6.0, 2.5 + 1.1 * len(marks)), 4.6)
    axes = figure.add_subplot()
    style(axes)
    if reference:
        axes.axhspan(reference.low, reference.high, color=FAINT, alpha=0.6, linewidth=0)
        axes.axhline(reference.mean, color=INK, linestyle="--", linewidth=1.2, label=plain(reference.name))
    kept = [index for index, mark in enumerate(marks) if mark.kept]
    axes.plot(kept, [marks[index].mean for index in kept], color=MAIN, linewidth=1.5, zorder=1)
    for index, mark in enumerate(marks):
        colour = ACCEPT if mark.kept else OTHER
        reach = [[max(0.0, mark.mean - mark.low)], [max(0.0, mark.high - mark.mean)]]
        axes.errorbar(index, mark.mean, yerr=reach, color=colour, marker="o" if mark.kept else "X", capsize=5, ms=8)
        axes.annotate(
            f"{mark.mean:.1%}", (index, mark.mean), (9, 5), textcoords="offset points", color=INK, fontsize=10
        )
    if any(not mark.kept for mark in marks):
        axes.plot([], [], color=OTHER, marker="X", linestyle="", label="rolled back")
    axes.set_xticks(range(len(marks)), [plain(mark.name, 24) for mark in marks])
    axes.set_xlim(-0.5, len(marks) - 0.3)
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(per_cent)
    axes.set_ylabel("right on held-out problems", color=INK)
    axes.set_title(f"{plain(title)}\n{plain(subtitle, 100)}", color=INK, fontsize=11, loc="left")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=9, frameon=True)
    return to_png(figure)
