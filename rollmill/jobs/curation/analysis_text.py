"""An analysis as text: aligned for a terminal, or as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size

from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.reports.plots.histogram import Histogram
from rollmill.reports.plots.labels import counted, number, one_line, share
from rollmill.statistics.summary import SummaryStats

_WIDTH = 100
_NAME, _VALUE, _BAR = 28, 11, 40
_EIGHTHS = " ▏▎▍▌▋▊▉"
_MOST_KINDS = 8

Line = tuple[str, str, str]
"""Name of a measure, its value, and a remark."""


def analysis_text(analysis: Analysis, title: str) -> str:
    """Return plain text of at most 100 columns, ending in a line break."""
    counts = f"{counted(analysis.rollouts, 'rollout')} of {counted(analysis.problems, 'problem')}"
    lines = [set_cell_size(one_line(title), min(cell_len(one_line(title)), _WIDTH)), counts]
    for note in analysis.notes:
        lines.extend(_wrap(note))
    for heading, block in _sections(analysis):
        if block:
            lines += ["", heading, *block]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def analysis_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Return the same numbers as rows of a table with `measure` and `value`, without the histograms."""
    rows = [
        ("rollouts", number(analysis.rollouts), ""),
        ("problems", number(analysis.problems), ""),
        *_outcomes(analysis),
        *_measures(analysis),
        *((f"problems: {name}", value, remark) for name, value, remark in _problems(analysis)),
    ]
    kinds = {"exit status": analysis.exit_statuses, "error": analysis.errors, "finish reason": analysis.finish_reasons}
    for what, counts in kinds.items():
        rows += [(f"{what}: {one_line(kind)}", number(count), "") for kind, count in counts.items()]
    return [{"measure": name, "value": f"{value} ({remark})" if remark else value} for name, value, remark in rows]


def _sections(analysis: Analysis) -> Iterator[tuple[str, list[str]]]:
    yield "Outcomes", [_line(line) for line in _outcomes(analysis)]
    if analysis.rollouts:
        yield "Measures", _spreads(analysis)
        yield "Rewards", _bars(analysis.reward_histogram)
        yield "Problems", [_line(line) for line in _problems(analysis)]
    if analysis.problems > 1 and analysis.rollouts > analysis.problems:
        yield "Mean reward of the problems", _bars(analysis.problem_reward_histogram)
    yield "Exit statuses", _kinds(analysis.exit_statuses)
    yield "Errors of failed rollouts", _kinds(analysis.errors)
    yield "Finish reasons", _kinds(analysis.finish_reasons)


def _outcomes(analysis: Analysis) -> Iterator[Line]:
    total, judged = analysis.rollouts, analysis.judged
    yield "judged", number(judged), share(judged, total, "")
    yield "failed", number(analysis.failed), share(analysis.failed, total, "")
    if analysis.unparseable:
        yield "unparseable", number(analysis.unparseable), f"{share(analysis.unparseable, judged)} of the judged"
    if analysis.empty:
        yield "nothing written", number(analysis.empty), share(analysis.empty, total, "")
    if analysis.reasoning_only:
        yield "  reasoning only", number(analysis.reasoning_only), share(analysis.reasoning_only, total, "")
    if analysis.truncated:
        yield "truncated", number(analysis.truncated), share(analysis.truncated, total, "")
    if analysis.marked:
        yield "marked against training", number(analysis.marked), share(analysis.marked, total, "")
    if analysis.quarantined:
        yield "quarantined rows", number(analysis.quarantined), "could not be used, not counted above"
    if analysis.success_interval is None:
        yield "success rate", "-", "no rollout says whether it was a success"
        return
    low, high = analysis.success_interval
    remark = f"{analysis.successes:,} of {analysis.verdicts:,}, 95% interval {low:.1%} to {high:.1%}"
    yield "success rate", share(analysis.successes, analysis.verdicts), remark
    if analysis.contradicted:
        yield "claimed, but not successful", number(analysis.contradicted), "the record's own evaluation says no"


def _named_spreads(analysis: Analysis) -> list[tuple[str, SummaryStats | None]]:
    return [
        ("reward", analysis.reward),
        ("error of the answers", analysis.answer_error),
        ("speedup", analysis.speedup),
        ("model calls", analysis.model_calls),
        ("messages", analysis.messages),
        ("tokens", analysis.tokens),
        ("completion tokens", analysis.completion_tokens),
    ]


def _spreads(analysis: Analysis) -> list[str]:
    known = [(name, spread) for name, spread in _named_spreads(analysis) if spread]
    if not known:
        return ["  nothing was measured"]
    columns = ("mean", "std", "min", "median", "max")
    lines = [f"  {'':<{_NAME}}" + "".join(f"{column:>{_VALUE}}" for column in (*columns, "counted"))]
    for name, spread in known:
        cells = [_narrow(getattr(spread, column)) for column in (*columns, "count")]
        lines.append(f"  {name:<{_NAME}}" + "".join(f"{cell:>{_VALUE}}" for cell in cells))
    if analysis.total_model_calls is not None:
        lines.append(f"  {'model calls in all':<{_NAME}}{number(analysis.total_model_calls):>{_VALUE}}")
    return lines


def _measures(analysis: Analysis) -> Iterator[Line]:
    for name, spread in _named_spreads(analysis):
        if spread:
            rest = {"std": spread.std, "min": spread.min, "median": spread.median, "max": spread.max}
            details = ", ".join(f"{key} {number(value)}" for key, value in rest.items())
            yield f"mean {name}", number(spread.mean), f"{details}; {number(spread.count)} counted"
    if analysis.total_model_calls is not None:
        yield "model calls in all", number(analysis.total_model_calls), ""
    if analysis.reward_missing:
        yield "judged without a reward", number(analysis.reward_missing), ""


def _problems(analysis: Analysis) -> Iterator[Line]:
    yield "rollouts each", *_samples(analysis)
    known = analysis.problems - analysis.problems_unjudged
    right = {
        "none right": analysis.problems_none_right,
        "some right": analysis.problems_some_right,
        "all right": analysis.problems_all_right,
    }
    if known:
        for name, count in right.items():
            yield name, number(count), share(count, known)
    if analysis.problems_unjudged:
        yield "without a verdict", number(analysis.problems_unjudged), ""
    if analysis.duplicate_share is not None:
        remark = f"{analysis.duplicate_share:.1%} of the completions, each within its problem"
        yield "duplicate completions", number(analysis.duplicates), remark
    if analysis.identical_problems:
        remark = f"of {counted(analysis.repeated_problems, 'problem')} with several completions"
        yield "all completions the same", number(analysis.identical_problems), remark


def _samples(analysis: Analysis) -> tuple[str, str]:
    spread, counts = analysis.samples_per_problem, analysis.samples_counts
    if spread is None:
        return "-", ""
    if spread.min == spread.max:
        return number(spread.min), ""
    if counts is None or len(counts) > 4:
        return number(spread.median), f"median; {number(spread.min)} to {number(spread.max)}"
    each = ", ".join(f"{count:,} with {samples:,}" for samples, count in counts.items())
    return number(spread.median), f"median; {each}"


def _bars(histogram: Histogram | None) -> list[str]:
    if histogram is None:
        return ["  no reward is known"]
    if histogram.values is not None:
        names = [number(value) for value in histogram.values]
    else:
        names = [
            f"{_edge(low)} to {_edge(high)}" for low, high in zip(histogram.edges, histogram.edges[1:], strict=False)
        ]
    bars = list(zip(names, histogram.counts, strict=True))
    if histogram.below:
        bars.insert(0, (f"below {_edge(histogram.edges[0])}", histogram.below))
    if histogram.above:
        bars.append((f"above {_edge(histogram.edges[-1])}", histogram.above))
    return _draw_bars(bars)


def _kinds(kinds: dict[str, int]) -> list[str]:
    bars = [(one_line(kind), count) for kind, count in kinds.items()]
    others = bars[_MOST_KINDS:]
    if len(others) > 1:
        bars = [*bars[:_MOST_KINDS], (f"({len(others)} other kinds)", sum(count for _, count in others))]
    return _draw_bars(bars)


def _draw_bars(bars: list[tuple[str, int]]) -> list[str]:
    longest, total = max((count for _, count in bars), default=1) or 1, sum(count for _, count in bars)
    return [
        f"  {_cell(name, _NAME)}{count:>{_VALUE},}  {share(count, total):>6}  {_bar(count / longest)}"
        for name, count in bars
    ]


def _bar(part: float) -> str:
    eighths = max(round(part * _BAR * 8), 1 if part > 0 else 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _line(line: Line) -> str:
    name, value, remark = line
    return f"  {_cell(name, _NAME)}{value:>{_VALUE}}  {remark:>6}"


def _cell(text: str, width: int) -> str:
    """Return text of exactly `width` columns, wide characters counted as two; cut text ends in an ellipsis."""
    return set_cell_size(text, width) if cell_len(text) < width else f"{set_cell_size(text, width - 2)}… "


def _wrap(note: str) -> list[str]:
    import textwrap

    return textwrap.wrap(note, _WIDTH, initial_indent="  ! ", subsequent_indent="    ")


def _narrow(value: float) -> str:
    shown = number(value)
    return shown if len(shown) < _VALUE else f"{value:.3g}"


def _edge(value: float) -> str:
    return f"{value:.4g}"
