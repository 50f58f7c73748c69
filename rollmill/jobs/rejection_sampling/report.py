"""Formats the statistics as text: `statistics.txt`."""

from __future__ import annotations

from collections.abc import Iterable

from rollmill.generation.failures import failure_lines
from rollmill.generation.verification import CONTENT_FILTER, NO_TEXT, REASONING_ONLY, REFUSAL
from rollmill.jobs.rejection_sampling.statistics import Statistics
from rollmill.reports.curve_table import curve_table
from rollmill.statistics.summary import SummaryStats
from rollmill.terminal.escapes import visible, visible_line

_WIDTH = 34
_NO_TEXT = {
    REASONING_ONLY: "  thoughts alone",
    REFUSAL: "  no text: refusal",
    CONTENT_FILTER: "  no text: content filter",
    NO_TEXT: "  no text",
}


def format_statistics(
    statistics: Statistics, *, title: str, warnings: Iterable[str] = (), health: Iterable[str] = ()
) -> str:
    """Return the text, with a newline at the end.

    Args:
        statistics: The run's statistics.
        title: First line of the text.
        warnings: Messages on what a user should look at.
        health: Lines of the check of the rollouts as training data.
    """
    coverage = statistics.coverage
    head = [
        title,
        "=" * len(title),
        _line("problems", f"{statistics.problems:,}"),
        _line("rollouts per problem", f"{statistics.num_rollout:,}"),
        _line("coverage", coverage.line()),
        *(_line(f"  failed: {visible_line(kind)}", f"{count:,}") for kind, count in statistics.failed_kinds.items()),
        *(f"    {line}" for line in failure_lines(statistics.failed_words)),
    ]
    sections = [head]
    if coverage.ok == 0:
        sections.append([_nothing_ok(statistics)])
    if coverage.judged:
        sections += [_rollouts(statistics), _least_errors(statistics), curve_table(statistics.curves)]
    if coverage.ok:
        sections.append([_best_of_n_caveat(statistics)])
    sections.append([f"WARNING: {visible(warning)}" for warning in warnings])
    sections.append([visible(line) for line in health])
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _nothing_ok(statistics: Statistics) -> str:
    coverage = statistics.coverage
    if coverage.unparseable:
        return "No rollout has an answer that can be judged: there are no errors to describe."
    if coverage.failed:
        return "No rollout has an answer: those attempted failed outside the model, so nothing is known about it."
    return "No rollout was attempted yet."


def _rollouts(statistics: Statistics) -> list[str]:
    tolerance = "" if statistics.accept_error is None else f" (error <= {number(statistics.accept_error)})"
    return [
        "Rollouts" + (" (one answer at a time)" if statistics.error else ""),
        _line("  parse rate", share(statistics.parse_rate), "of ok + unparseable"),
        _line("  truncated", share(statistics.truncation_rate), "of all completions"),
        *(_line(_NO_TEXT.get(reason, reason), f"{count:,}") for reason, count in statistics.no_text.items()),
        _line("  accepted", f"{statistics.accepted:,}", tolerance.strip()),
        _line("  accepted of ok", share(statistics.accepted_of_ok)),
        _line("  accepted of ok + unparseable", share(statistics.accepted_of_judged)),
        *_summary_lines("error", statistics.error),
    ]


def _least_errors(statistics: Statistics) -> list[str]:
    baseline = statistics.guess_baseline
    lines = [
        f"Problems (best of {statistics.num_rollout})",
        _line("  with an accepted rollout", share(statistics.share_solved), "of problems with ok or unparseable"),
    ]
    if statistics.least_error:
        lines.append(_line("  least error exactly 0", share(statistics.share_exact)))
    lines += _summary_lines("least error", statistics.least_error)
    if baseline.mean_least_error is None:
        return [*lines, _line("  guessing's mean least error", "-", f"not applicable: {baseline.reason}")]
    note = f"expected, drawing {statistics.num_rollout} of the ground truths at random per problem"
    if baseline.sampled < baseline.problems:
        note += f"; computed on a seeded sample of {baseline.sampled:,} problems"
    return [*lines, _line("  guessing's mean least error", number(baseline.mean_least_error), note)]


def _summary_lines(name: str, values: SummaryStats | None) -> list[str]:
    if values is None:
        return []
    statistics = {
        "mean": values.mean,
        "median": values.median,
        "std": values.std,
        "min": values.min,
        "25th percentile": values.p25,
        "75th percentile": values.p75,
        "90th percentile": values.p90,
        "95th percentile": values.p95,
        "max": values.max,
    }
    return [
        _line(f"  {name}: {statistic}", number(value), f"over {values.count:,}" if statistic == "mean" else "")
        for statistic, value in statistics.items()
    ]


def _best_of_n_caveat(statistics: Statistics) -> str:
    """Return a warning that the least of N errors overstates the model: it is selected by the ground truth."""
    n, error, least = statistics.num_rollout, statistics.error, statistics.least_error
    if n == 1:
        return "With one rollout per problem, the least error is that rollout's error."
    if not error or not least:
        return f"Best of {n} calls a problem solved when 1 of {n} answers is right: pass@1 is what one answer is worth."
    text = (
        f"The least of {n} overstates the model: it selects the answer by the ground truth, so it shrinks as N grows"
        f"\nfor any model, even for guesses. One answer errs by {number(error.mean)} on average"
        f" (median {number(error.median)}), the least of {n} by {number(least.mean)}"
    )
    guess = statistics.guess_baseline.mean_least_error
    return text + ("." if guess is None else f",\nand guessing would reach {number(guess)} with as many tries.")


def number(value: float | None) -> str:
    """Format a number with four significant digits, or as a dash."""
    return "-" if value is None else f"{value:.4g}"


def share(value: float | None) -> str:
    """Format a share in percent with one decimal, or as a dash."""
    return "-" if value is None else f"{value:.1%}"


def _line(name: str, value: str, note: str = "") -> str:
    return f"{name:<{_WIDTH}}{value:>9}  {note}".rstrip() if len(value) <= 9 else f"{name:<{_WIDTH}}{value}"
