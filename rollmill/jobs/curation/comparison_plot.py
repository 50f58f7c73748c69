"""Plot `compare.png`: several sets of rollouts side by side, and the numbers of the same comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from rollmill.jobs.curation.analysis import analyse, summarise_spread
from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.jobs.curation.per_problem import per_problem
from rollmill.reports.plots.bins import Numbers
from rollmill.reports.plots.canvas import ACCEPT, GUESS, INK, MAIN, OTHER, PAPER, draw_note, per_cent, style, to_png
from rollmill.reports.plots.histogram import LARGEST, make_histogram, usual_range
from rollmill.reports.plots.labels import label, number, one_line, share
from rollmill.reports.plots.outcomes import roomy_figure
from rollmill.statistics.intervals import wilson_interval
from rollmill.statistics.summary import SummaryStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NamedTables = list[tuple[str, pl.DataFrame]]

_FIRST_COLOURS = (MAIN, OTHER, ACCEPT, GUESS)


def draw_compared(tables: NamedTables) -> bytes:
    """Return the plot as PNG bytes: rewards, success rates with 95 % Wilson intervals, shared problems, lengths.

    `tables` are (name, table of rollouts) in the order to draw. Any tables can be drawn, empty ones too.
    """
    names, colours = [label(name, 36) for name, _ in tables], _colours(len(tables))
    figure = roomy_figure(13, max(9.0, 5 + 0.5 * len(tables)))
    figure.suptitle(_title(tables), color=INK, fontsize=13, x=0.01, ha="left")
    panels = figure.subplots(2, 2)
    titles = ("Rewards", "Success rate, with 95% interval", "Problems in all of them", "Length")
    for axes, title in zip(panels.flat, titles, strict=True):
        axes.set_title(title, color=INK, fontsize=11, loc="left")
    _draw_rewards(panels[0, 0], tables, names, colours)
    _draw_success(panels[0, 1], tables, names, colours)
    _draw_shared(panels[1, 0], tables, names, colours)
    _draw_lengths(panels[1, 1], tables, names, colours)
    return to_png(figure)


def compare_rows(tables: NamedTables) -> list[dict[str, str]]:
    """Return the key numbers, one row per table of rollouts; `-` for unknown ones."""
    return [_row(name, analyse(table)) for name, table in tables]


def _row(name: str, analysis: Analysis) -> dict[str, str]:
    low_high = analysis.success_interval
    return {
        "file": one_line(name),
        "rollouts": number(analysis.rollouts),
        "problems": number(analysis.problems),
        "failed": number(analysis.failed),
        "success rate": share(analysis.successes, analysis.verdicts),
        "95% interval": f"{low_high[0]:.1%} to {low_high[1]:.1%}" if low_high else "-",
        "mean reward": _mean(analysis.reward),
        "problems solved": share(
            analysis.problems_some_right + analysis.problems_all_right, analysis.problems - analysis.problems_unjudged
        ),
        "mean model calls": _mean(analysis.model_calls),
        "mean messages": _mean(analysis.messages),
        "mean tokens": _mean(analysis.tokens),
        "duplicates": "-" if analysis.duplicate_share is None else f"{analysis.duplicate_share:.1%}",
    }


def _mean(spread: SummaryStats | None) -> str:
    return number(spread.mean) if spread else "-"


def _title(tables: NamedTables) -> str:
    if len(tables) == 2:
        return f"{label(tables[0][0], 46)} and {label(tables[1][0], 46)}"
    return f"{len(tables):,} sets of rollouts"


def _draw_rewards(axes: Axes, tables: NamedTables, names: list[str], colours: list[Any]) -> None:
    """Draw the shares of each table's rewards: grouped bars of a few values, else outlines over the same bins.

    Args:
        axes: where to draw.
        tables: (name, table of rollouts) in order.
        names: labels of the tables.
        colours: of the tables.
    """
    rewards = [_finite(table, "reward") for _, table in tables]
    histogram = make_histogram(np.concatenate([*rewards, np.zeros(0)]), bars_for=256)
    if histogram is None:
        draw_note(axes, "No rollout has a reward")
        return
    style(axes)
    edges = np.array(histogram.edges)
    for index, (numbers, name, colour) in enumerate(zip(rewards, names, colours, strict=True)):
        shares = np.histogram(numbers, edges)[0] / max(numbers.size, 1)
        known = name if numbers.size else f"{name} (no rewards)"
        if histogram.values is None:
            axes.stairs(shares, edges, color=colour, linewidth=2, label=known)
        else:
            width = 0.84 / len(tables)
            axes.bar(
                np.arange(shares.size) - 0.42 + (index + 0.5) * width, shares, width * 0.92, color=colour, label=known
            )
    if histogram.values is not None:
        axes.set_xticks(range(len(histogram.values)), [number(value) for value in histogram.values])
        axes.set_xlim(-0.7, len(histogram.values) - 0.3)
        axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(per_cent)
    axes.set_ylim(0, axes.get_ylim()[1] * (1.1 + 0.08 * min(len(tables), 8)))  # room for the legend
    hidden = histogram.below + histogram.above
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= min(1.0, axes.get_ylim()[1])])
    axes.set_xlabel(f"reward{f' ({hidden:,} beyond the axis not shown)' if hidden else ''}", color=INK)
    axes.set_ylabel("share of the rollouts with a reward", color=INK)
    axes.legend(fontsize=8, loc="upper left", framealpha=0.9, facecolor=PAPER, labelcolor=INK)


def _draw_success(axes: Axes, tables: NamedTables, names: list[str], colours: list[Any]) -> None:
    """Draw the success rates with their intervals.

    Args:
        axes: where to draw.
        tables: (name, table of rollouts) in order.
        names: labels of the tables.
        colours: of the tables.
    """
    counts = [(int(table["success"].sum() or 0), int(table["success"].count())) for _, table in tables]
    intervals = [wilson_interval(*pair) for pair in counts]
    if not any(intervals):
        draw_note(axes, "No rollout has a verdict")
        return
    style(axes)
    for row, (pair, interval, colour) in enumerate(zip(counts, intervals, colours, strict=True)):
        if interval is None:
            axes.text(0, row, " no verdicts", va="center", fontsize=9, color=INK)
            continue
        axes.plot(interval, [row, row], color=colour, linewidth=6, alpha=0.5, solid_capstyle="butt")
        axes.plot(pair[0] / pair[1], row, "o", color=colour, markersize=9, markeredgecolor=INK)
        caption = f"{share(*pair)} ({pair[0]:,} of {pair[1]:,})"
        axes.annotate(
            caption, (pair[0] / pair[1], row), (0, 9), textcoords="offset points", ha="center", fontsize=8, color=INK
        )
    highest = max(interval[1] for interval in intervals if interval)
    axes.set_xlim(-0.12 * highest, 1.12 * highest)
    _name_rows(axes, names)
    axes.xaxis.set_major_formatter(per_cent)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1])
    axes.set_xlim(-0.12 * highest, 1.12 * highest)
    axes.set_xlabel("successful, of those with a verdict", color=INK)


def _draw_shared(axes: Axes, tables: NamedTables, names: list[str], colours: list[Any]) -> None:
    """Draw per-problem means of the problems that all tables have: points of two tables, boxes of more.

    Args:
        axes: where to draw.
        tables: (name, table of rollouts) in order.
        names: labels of the tables.
        colours: of the tables.
    """
    if len(tables) < 2:
        draw_note(axes, "One set of rollouts: nothing to compare")
        return
    choices = {"mean reward": _shared(tables, "mean_reward"), "success share": _shared(tables, "success_share")}
    what, shared = next(((name, rows) for name, rows in choices.items() if rows.height), ("", None))
    if shared is None:
        draw_note(axes, "No problem has rewards or verdicts in all of them")
        return
    style(axes)
    columns = [shared[str(index)].to_numpy() for index in range(len(tables))]
    axes.set_title(f"The {shared.height:,} problems in all of them: {what} of each", color=INK, fontsize=11, loc="left")
    if len(tables) == 2:
        _scatter(axes, columns[0], columns[1], names)
        return
    _boxes(axes, [summarise_spread(shared[str(index)]) for index in range(len(tables))], names, colours)
    axes.set_xlabel(f"{what}\n(box: middle half, whiskers: least and largest, diamond: mean)", color=INK)


def _shared(tables: NamedTables, column: str) -> pl.DataFrame:
    """Return one row per problem that has a number in all tables, in columns "0", "1", ... in their order."""
    parts = [
        per_problem(table.lazy()).select("instance_id", pl.col(column).alias(str(index))).drop_nulls()
        for index, (_, table) in enumerate(tables)
    ]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.join(part, on="instance_id")
    return joined.collect()


def _scatter(axes: Axes, across: Numbers, up: Numbers, names: list[str]) -> None:
    """Draw a point per problem; equal ones become one whose area grows with their number.

    Args:
        axes: where to draw.
        across: the numbers of the first table, of shape (n,).
        up: those of the second table, of shape (n,).
        names: labels of the tables.
    """
    begin, end = usual_range(np.concatenate([across, up]))
    inside = (np.minimum(across, up) >= begin) & (np.maximum(across, up) <= end)
    points, counts = np.unique(np.column_stack([across, up])[inside], axis=0, return_counts=True)
    room = (end - begin) * 0.06 or 0.5
    sizes = 14 + 360 * (counts - 1) / max(counts.max(initial=1) - 1, 8)
    axes.plot([begin - room, end + room], [begin - room, end + room], color=INK, linewidth=1, linestyle=":")
    axes.scatter(points[:, 0], points[:, 1], s=sizes, color=MAIN, edgecolor=INK, linewidth=0.4, alpha=0.7)
    axes.set_xlim(begin - room, end + room)
    axes.set_ylim(begin - room, end + room)
    better, worse = int((up > across).sum()), int((up < across).sum())
    hidden = int((~inside).sum())
    summary = f"better across: {worse:,}, better up: {better:,}, equal: {across.size - better - worse:,}"
    axes.set_xlabel(f"{names[0]}\n({summary}{f'; beyond the axes: {hidden:,}' if hidden else ''})", color=INK)
    axes.set_ylabel(names[1], color=INK)


def _draw_lengths(axes: Axes, tables: NamedTables, names: list[str], colours: list[Any]) -> None:
    """Draw boxes of the trajectories' lengths, in a measure that all tables have.

    Args:
        axes: where to draw.
        tables: (name, table of rollouts) in order.
        names: labels of the tables.
        colours: of the tables.
    """
    known = {
        name: [summarise_spread(table[name]) for _, table in tables] for name in ("tokens", "messages", "model_calls")
    }
    column = next((name for name, spreads in known.items() if all(spreads)), "model_calls")
    spreads = known[column]
    if not any(spreads):
        draw_note(axes, "No length that all of them know")
        return
    style(axes)
    what = {
        "tokens": "tokens in the trajectory",
        "messages": "messages in the trajectory",
        "model_calls": "model calls",
    }
    longest = [spread.max for spread in spreads if spread]
    if min(longest) > 0 and max(longest) > 30 * max(spread.p75 for spread in spreads if spread):
        axes.set_xscale("symlog", linthresh=max(1.0, max(spread.p25 for spread in spreads if spread)))
    _boxes(axes, spreads, names, colours)
    axes.set_xlabel(f"{what[column]}\n(box: middle half, whiskers: least and largest, diamond: mean)", color=INK)


def _boxes(axes: Axes, spreads: list[SummaryStats | None], names: list[str], colours: list[Any]) -> None:
    """Draw a box plot in each row.

    Args:
        axes: where to draw.
        spreads: statistics of each row; None for unknown ones.
        names: labels of the rows.
        colours: of the rows.
    """
    for row, (spread, colour) in enumerate(zip(spreads, colours, strict=True)):
        if spread is None:
            axes.text(0.01, row, " not known", va="center", fontsize=9, color=INK, transform=axes.get_yaxis_transform())
            continue
        axes.plot([spread.min, spread.max], [row, row], color=colour, linewidth=2)
        axes.barh(row, spread.p75 - spread.p25, 0.5, spread.p25, color=colour, edgecolor=INK, linewidth=0.8)
        axes.plot([spread.median] * 2, [row - 0.25, row + 0.25], color=INK, linewidth=2)
        axes.plot(spread.mean, row, "D", color=PAPER, markeredgecolor=INK, markersize=6)
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    _name_rows(axes, names)


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(max(len(names), 2) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _finite(table: pl.DataFrame, column: str) -> Numbers:
    numbers = table[column].drop_nulls()
    return numbers.filter(numbers.is_finite()).clip(-LARGEST, LARGEST).to_numpy()


def _colours(count: int) -> list[Any]:
    """Return up to four clearly distinct colours; of more, colours from light to dark."""
    import matplotlib

    if count <= len(_FIRST_COLOURS):
        return list(_FIRST_COLOURS[:count])
    return list(matplotlib.colormaps["viridis"](np.linspace(0.85, 0.0, count)))
