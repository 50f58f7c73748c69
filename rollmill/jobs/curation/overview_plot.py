"""Plot `overview.png`: one set of rollouts in six panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rollmill.jobs.curation.per_problem import hardest_first, per_problem
from rollmill.reports.plots.bins import Numbers
from rollmill.reports.plots.canvas import FAINT, INK, MAIN, OTHER, PAPER, draw_note, per_cent, style, to_png
from rollmill.reports.plots.histogram import usual_range
from rollmill.reports.plots.labels import counted, label, number
from rollmill.reports.plots.outcomes import (
    NO_SUCCESS,
    SUCCESS,
    UNKNOWN,
    draw_by_outcome,
    outcome_legend,
    roomy_figure,
    whole_numbers,
)
from rollmill.statistics.intervals import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_DOTS = 150
"""Up to this many problems, each gets its own mark; more become a band."""
_MOST_INDICES = 64
_MOST_ENDS = 8


def draw_overview(table: pl.DataFrame, title: str) -> bytes:
    """Return the plot as PNG bytes.

    Its panels are rewards, problems, trajectory lengths, model calls, success over sample index, and ends. Any table
    can be drawn, an empty one too: a panel without data says so.
    """
    figure = roomy_figure(13, 10)
    problems = hardest_first(per_problem(table.lazy()).collect())
    counts = f"{counted(table.height, 'rollout')} of {counted(problems.height, 'problem')}"
    figure.suptitle(f"{label(title, 100)}\n{counts}", color=INK, fontsize=13, x=0.01, ha="left")
    panels = figure.subplots(3, 2)
    for axes, name in zip(
        panels.flat,
        ("Rewards", "Problems", "Length", "Model calls", "Success over sample index", "How rollouts ended"),
        strict=True,
    ):
        axes.set_title(name, color=INK, fontsize=11, loc="left")
    draw_by_outcome(panels[0, 0], table, "reward", name="reward", missing="No rollout has a reward")
    _draw_problems(panels[0, 1], problems)
    _draw_length(panels[1, 0], table)
    missing = "No rollout says how many model calls it took"
    draw_by_outcome(panels[1, 1], table, "model_calls", name="model calls", missing=missing)
    _draw_indices(panels[2, 0], table)
    _draw_ends(panels[2, 1], table)
    outcome_legend(figure)
    return to_png(figure)


def _draw_length(axes: Axes, table: pl.DataFrame) -> None:
    column = "tokens" if table["tokens"].count() else "messages"
    missing = "No rollout has messages or token counts"
    draw_by_outcome(axes, table, column, name=f"{column} in the trajectory", missing=missing)


def _draw_problems(axes: Axes, problems: pl.DataFrame) -> None:
    """Draw each problem's mean reward with the range of its rewards; without any reward, its success share."""
    rewarded = problems["mean_reward"].count() > 0
    if not rewarded and not problems["success_share"].count():
        draw_note(axes, "No rollout has a reward or a verdict")
        return
    style(axes)
    positions = np.arange(1.0, problems.height + 1)
    low, middle, high = (
        problems[name if rewarded else "success_share"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        for name in ("least_reward", "mean_reward", "best_reward")
    )
    ends = np.concatenate([part[np.isfinite(part)] for part in (low, high)])
    begin, end = usual_range(ends) if rewarded else (0.0, 1.0)
    hidden = int(((high > end) | (low < begin)).sum())
    middle = np.where((middle > end) | (middle < begin), np.nan, middle)
    low, high = np.clip(low, begin, end), np.clip(high, begin, end)
    if problems.height <= _MOST_DOTS:
        axes.vlines(positions, low, high, color=MAIN, linewidth=max(1.0, 6 - problems.height / 20), alpha=0.6)
        axes.plot(positions, middle, "o", color=INK, markersize=max(2.5, 6 - problems.height / 30), linestyle="none")
    else:
        axes.fill_between(positions, low, high, color=MAIN, alpha=0.45, linewidth=0, step="mid")
        axes.plot(positions, middle, color=INK, linewidth=1.2 if problems.height < 1000 else 0.5)
    axes.set_xlim(0.5 - 0.02 * problems.height, problems.height * 1.02 + 0.5)
    room = (end - begin) * 0.06 or 0.5
    axes.set_ylim(begin - room, end + 4 * room)
    _draw_regions(axes, problems)
    whole_numbers(axes.xaxis)
    what = "mean reward (dark), range (light)" if rewarded else "success share"
    axes.set_ylabel(what, color=INK)
    if not rewarded:
        axes.yaxis.set_major_formatter(per_cent)
    axes.set_xlabel(f"problems, hardest first{f' ({hidden:,} reach beyond the axis)' if hidden else ''}", color=INK)


def _draw_regions(axes: Axes, problems: pl.DataFrame) -> None:
    """Draw a strip above the marks for problems with no, some and only successful rollouts."""
    share = problems["success_share"]
    counts = {
        "none right": (int((share == 0).sum()), NO_SUCCESS),
        "some": (int(((share > 0) & (share < 1)).sum()), "#c9b458"),
        "all": (int((share == 1).sum()), SUCCESS),
        "no verdict": (share.null_count(), UNKNOWN),
    }
    start = 1
    for name, (count, colour) in counts.items():
        if not count:
            continue
        axes.axvspan(start - 0.5, start + count - 0.5, 0.94, 1.0, color=colour, linewidth=0)
        if count >= 0.11 * problems.height:
            middle = start + count / 2 - 0.5
            axes.text(
                middle, 0.925, f"{name}: {count:,}", ha="center", va="top", fontsize=8, color=INK, clip_on=True,
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        start += count


def _draw_indices(axes: Axes, table: pl.DataFrame) -> None:
    indices = (
        table.lazy()
        .filter(pl.col("success").is_not_null())
        .group_by("sample_id")
        .agg(pl.len().alias("count"), pl.col("success").sum().alias("right"))
        .sort("sample_id")
        .collect()
    )
    if indices.height < 2:
        known = "No rollout has a verdict" if indices.is_empty() else "One sample per problem: no index to compare"
        draw_note(axes, known)
        return
    style(axes)
    if indices.height > _MOST_INDICES:
        group = pl.int_range(pl.len()) * _MOST_INDICES // pl.len()
        indices = indices.group_by(group.alias("group"), maintain_order=True).agg(
            pl.col("sample_id").first(), pl.col("count").sum(), pl.col("right").sum()
        )
    count, right = indices["count"].to_numpy(), indices["right"].to_numpy()
    positions: Numbers = indices["sample_id"].cast(pl.Float64).to_numpy()
    reach = np.array([wilson_interval(int(r), int(n)) for r, n in zip(right, count, strict=True)])
    axes.fill_between(positions, reach[:, 0], reach[:, 1], color=MAIN, alpha=0.35, linewidth=0, label="95% interval")
    axes.plot(positions, right / count, color=INK, marker="o", markersize=3, linewidth=1.2, label="success rate")
    axes.axhline(right.sum() / count.sum(), color=OTHER, linestyle="--", linewidth=1.2, label="of all rollouts")
    axes.set_ylim(0, min(1.05, max(0.05, float(reach[:, 1].max()) * 1.15)))
    axes.yaxis.set_major_formatter(per_cent)
    whole_numbers(axes.xaxis)
    axes.set_xlabel("sample_id", color=INK)
    axes.set_ylabel("successful", color=INK)
    axes.legend(fontsize=8, loc="best", framealpha=0.9, facecolor=PAPER, labelcolor=INK)


def _draw_ends(axes: Axes, table: pl.DataFrame) -> None:
    """Draw error types of failed rollouts, exit status or finish reason of others, the most frequent on top."""
    failed = pl.col("status") == "failed"
    error = pl.lit("failed: ") + pl.col("error_type").fill_null("unknown error")
    end = pl.coalesce("exit_status", "finish_reason", pl.when(failed).then(None).otherwise(pl.col("status")))
    ends = (
        table.lazy()
        .select(pl.when(failed).then(error).otherwise(end).alias("end"), failed.alias("failed"))
        .group_by("end", "failed")
        .len()
        .sort("len", "end", descending=[True, False])
        .collect()
    )
    if ends.is_empty():
        draw_note(axes, "No rollout")
        return
    style(axes)
    shown, others = ends.head(_MOST_ENDS), ends.slice(_MOST_ENDS)
    names = [label(name, 34) for name in shown["end"]]
    counts, colours = shown["len"].to_list(), [UNKNOWN if failed else MAIN for failed in shown["failed"]]
    if others.height:
        names.append(f"{others.height:,} other kinds")
        counts.append(int(others["len"].sum()))
        colours.append(FAINT)
    bars = axes.barh(range(len(names)), counts, color=colours, height=0.7)
    axes.bar_label(bars, [number(count) for count in counts], padding=3, fontsize=8, color=INK)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(max(len(names), 3) - 0.4, -0.6)
    axes.set_xlim(0, max(counts) * 1.15)
    axes.grid(visible=False, axis="y")
    whole_numbers(axes.xaxis)
    axes.set_xlabel("rollouts", color=INK)
