"""Plot `error_distribution.png`: the least error of every problem, with the errors of all rollouts behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rollmill.reports.plots.bins import Numbers, axis_end, bin_edges
from rollmill.reports.plots.canvas import (
    ACCEPT,
    GUESS,
    INK,
    MAIN,
    OTHER,
    draw_note,
    new_figure,
    per_cent,
    plain,
    style,
    to_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW_VALUES = 12
"""Up to this many distinct errors, each gets its own bar."""
_LARGEST = 1e300
"""Larger errors are drawn, and averaged, as this: sums and axes would overflow."""


def draw_error_distribution(
    least_errors: Numbers,
    errors: Numbers,
    *,
    title: str,
    problems: int,
    rollouts: int,
    num_rollout: int,
    parse_rate: float | None,
    guess_baseline: float | None = None,
    accept_error: float | None = None,
) -> bytes:
    """Return the plot as PNG bytes. It is drawn for any input: without any error it says so.

    Args:
        least_errors: the least error of each problem, finite, of shape (problems,).
        errors: the error of each rollout, finite, of shape (rollouts with an error,).
        title: of the plot.
        problems: number of problems.
        rollouts: number of judged rollouts.
        num_rollout: rollouts per problem.
        parse_rate: share of rollouts with an answer; None: not shown.
        guess_baseline: mean least error of guessing.
        accept_error: the largest error that is accepted.
    """
    figure = new_figure(9, 5.4)
    axes = figure.add_subplot()
    parsed = "" if parse_rate is None else f", {parse_rate:.1%} parsed"
    counts = f"{problems:,} problems, {rollouts:,} rollouts ({num_rollout} each{parsed})"
    axes.set_title(f"{plain(title)}\n{counts}", color=INK, fontsize=11, loc="left")
    if least_errors.size == 0:
        draw_note(axes, "No rollout has an error to show")
        return to_png(figure)
    style(axes)
    least_errors, errors = np.minimum(least_errors, _LARGEST), np.minimum(errors, _LARGEST)
    lines = _lines(least_errors, guess_baseline, accept_error)
    labels = (
        f"least of {num_rollout} per problem ({np.mean(least_errors == 0):.1%} exactly 0)",
        f"all rollouts (mean {float(errors.mean()):.4g}, median {float(np.median(errors)):.4g})" if errors.size else "",
    )
    values = np.unique(np.concatenate([least_errors, errors]))
    if values.size <= _FEW_VALUES:
        _bars(axes, values, least_errors, errors, labels, lines)
    else:
        _histogram(axes, least_errors, errors, labels, lines)
    axes.set_ylabel("share", color=INK)
    axes.yaxis.set_major_formatter(per_cent)
    figure.legend(fontsize=9, loc="outside lower center", ncols=2, frameon=False, labelcolor=INK)
    return to_png(figure)


Line = tuple[float, str, str, str]
"""Position, label, colour, dash pattern."""


def _lines(least: Numbers, guess: float | None, accept: float | None) -> list[Line]:
    mean, median = float(least.mean()), float(np.median(least))
    lines = [
        (mean, f"mean least error {mean:.4g}", INK, "-"),
        (median, f"median least error {median:.4g}", INK, ":"),
    ]
    if guess is not None:
        lines.append((guess, f"guessing's mean least error {guess:.4g}", GUESS, "--"))
    if accept is not None:
        lines.append((accept, f"accepted up to {accept:.4g}", ACCEPT, "-."))
    return lines


def _bars(
    axes: Axes, values: Numbers, least: Numbers, errors: Numbers, labels: tuple[str, str], lines: list[Line]
) -> None:
    """Draw a pair of bars for each of a few distinct errors.

    Args:
        axes: where to draw.
        values: the distinct errors, ascending.
        least: the least error of each problem.
        errors: the errors of all rollouts.
        labels: legend of the bars for `least` and for `errors`.
        lines: vertical lines.
    """
    positions = np.arange(values.size)
    axes.bar(positions - 0.2, _shares(values, least), 0.38, color=MAIN, label=labels[0])
    if errors.size:
        axes.bar(
            positions + 0.2, _shares(values, errors), 0.38, fill=False, edgecolor=OTHER, linewidth=2, label=labels[1]
        )
    for value, label, colour, dash in lines:
        inside = values.size > 1 and values[0] <= value <= values[-1]
        position = float(np.interp(value, values, positions)) if inside else np.nan
        axes.axvline(position, color=colour, linestyle=dash, linewidth=1.8, label=label)
    axes.set_xticks(positions, [f"{value:.4g}" for value in values])
    axes.set_xlim(-0.8, values.size - 0.2)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("error", color=INK)


def _histogram(axes: Axes, least: Numbers, errors: Numbers, labels: tuple[str, str], lines: list[Line]) -> None:
    """Draw the least errors filled, and all errors as an outline, each as shares of their own number.

    Args:
        axes: where to draw.
        least: the least error of each problem.
        errors: the errors of all rollouts.
        labels: legend of the bars for `least` and for `errors`.
        lines: vertical lines.
    """
    upper = axis_end(least, errors)
    edges = bin_edges(np.concatenate([least, errors]), upper, max(least.size, errors.size))
    upper = float(edges[-1])
    axes.stairs(np.histogram(least, edges)[0] / least.size, edges, fill=True, color=MAIN, label=labels[0])
    if errors.size:
        shares = np.histogram(errors, edges)[0] / errors.size
        axes.stairs(shares, edges, color=OTHER, linewidth=2, label=labels[1])
    for value, label, colour, dash in lines:
        beyond = value > upper
        text = f"{label} (beyond the axis)" if beyond else label
        axes.axvline(np.nan if beyond else value, color=colour, linestyle=dash, linewidth=1.8, label=text)
    axes.set_xlim(float(edges[0]), upper)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    axes.set_xlabel(_axis_label(least, errors, upper), color=INK)


def _axis_label(least: Numbers, errors: Numbers, upper: float) -> str:
    beyond = int((errors > upper).sum()), int((least > upper).sum())
    if not any(beyond):
        return "error"
    largest = float(max(least.max(), errors.max(initial=0.0)))
    hidden = f"{beyond[0]:,} rollouts and {beyond[1]:,} problems beyond {upper:.4g}"
    return f"error (not shown: {hidden}; largest {largest:.4g})"


def _shares(values: Numbers, numbers: Numbers) -> Numbers:
    counts = np.bincount(np.searchsorted(values, numbers), minlength=values.size)
    return counts / max(numbers.size, 1)
