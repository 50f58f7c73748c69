"""The quality report: one self-contained HTML page about a table of rollouts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from html import escape

import polars as pl

from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.jobs.curation.analysis_text import analysis_rows
from rollmill.jobs.curation.per_problem import hardest_first, per_problem
from rollmill.jobs.curation.quality_report_page import PAGE, SCRIPT, STYLE
from rollmill.reports.plots.labels import counted, number, one_line, share

_MOST_PROBLEMS = 1000
_MOST_SOURCES = 50
_COLUMNS = {
    "instance_id": "problem",
    "samples": "rollouts",
    "failed": "failed",
    "judged": "judged",
    "successes": "successful",
    "success_share": "success share",
    "mean_reward": "mean reward",
    "best_reward": "best reward",
    "duplicates": "duplicates",
}


def quality_report(title: str, table: pl.DataFrame, analysis: Analysis, sources: Sequence[str]) -> bytes:
    """Return the page as UTF-8 bytes: summary, notes, overview picture, problems, ends of rollouts, duplicates.

    All text from outside is escaped. Only the 1,000 hardest problems are listed; the others are counted.

    Args:
        title: of the page.
        table: the rollouts.
        analysis: that of `table`.
        sources: paths or URLs that it was read from.
    """
    from rollmill.jobs.curation.overview_plot import draw_overview

    picture = base64.b64encode(draw_overview(table, title)).decode()
    body = [
        *_heading(title, analysis, sources),
        *_tiles(analysis),
        *_notes(analysis),
        "<h2>Overview</h2>",
        f'<img class="picture" alt="{escape(_picture_words(analysis))}" src="data:image/png;base64,{picture}">',
        *_problems(table),
        *_kinds("Exit statuses", "exit status", analysis.exit_statuses),
        *_kinds("Errors of failed rollouts", "error", analysis.errors),
        *_kinds("Finish reasons", "finish reason", analysis.finish_reasons),
        *_duplicates(analysis),
        *_all_numbers(analysis),
    ]
    page = PAGE.format(title=_escape(title), style=STYLE, script=SCRIPT, body="\n".join(body))
    return page.encode("utf-8", "replace")  # names may have lone surrogates, which UTF-8 cannot encode


def _escape(text: str) -> str:
    """Return text from outside for HTML, with hidden characters as escapes."""
    return escape(one_line(text))


def _heading(title: str, analysis: Analysis, sources: Sequence[str]) -> Iterator[str]:
    yield f"<h1>{_escape(title)}</h1>"
    yield f"<p>{counted(analysis.rollouts, 'rollout')} of {counted(analysis.problems, 'problem')}</p>"
    if sources:
        shown = "".join(f"<li><code>{_escape(source)}</code></li>" for source in sources[:_MOST_SOURCES])
        more = f"<li>and {len(sources) - _MOST_SOURCES:,} more</li>" if len(sources) > _MOST_SOURCES else ""
        yield f"<details><summary>Read from {counted(len(sources), 'source')}</summary><ul>{shown}{more}</ul></details>"


def _tiles(analysis: Analysis) -> Iterator[str]:
    interval = analysis.success_interval
    known = analysis.problems - analysis.problems_unjudged
    solved = analysis.problems_some_right + analysis.problems_all_right
    length = analysis.tokens or analysis.messages
    unit = "tokens" if analysis.tokens else "messages"
    tiles = [
        (
            "Success rate",
            share(analysis.successes, analysis.verdicts),
            f"{analysis.successes:,} of {analysis.verdicts:,}; 95% interval {interval[0]:.1%} to {interval[1]:.1%}"
            if interval
            else "no rollout has a verdict",
        ),
        ("Problems solved", share(solved, known), f"at least once: {solved:,} of {known:,}"),
        (
            "Mean reward",
            number(analysis.reward.mean) if analysis.reward else "-",
            f"median {number(analysis.reward.median)}" if analysis.reward else "no rollout has a reward",
        ),
        ("Failed", number(analysis.failed), f"{share(analysis.failed, analysis.rollouts)} of the rollouts"),
        ("Quarantined", number(analysis.quarantined), "input rows that could not be used"),
        (
            "Duplicates",
            number(analysis.duplicates),
            "none to compare"
            if analysis.duplicate_share is None
            else f"{analysis.duplicate_share:.1%} of the completions",
        ),
        (
            "Mean model calls",
            number(analysis.model_calls.mean) if analysis.model_calls else "-",
            f"{number(analysis.total_model_calls)} in all",
        ),
        (
            "Mean length",
            number(length.mean) if length else "-",
            unit if length else "not known",
        ),
    ]
    cells = (f"<div><dt>{name}</dt><dd>{value}<small>{remark}</small></dd></div>" for name, value, remark in tiles)
    yield f'<dl class="tiles">{"".join(cells)}</dl>'


def _notes(analysis: Analysis) -> Iterator[str]:
    yield "<h2>Notes</h2>"
    if not analysis.notes:
        yield "<p>Nothing looks wrong.</p>"
        return
    yield f'<ul class="notes">{"".join(f"<li>{_escape(_sentence(note))}</li>" for note in analysis.notes)}</ul>'


def _problems(table: pl.DataFrame) -> Iterator[str]:
    problems = hardest_first(per_problem(table.lazy()).collect())
    yield "<h2>Problems</h2>"
    if problems.is_empty():
        yield "<p>There is no problem.</p>"
        return
    left_out = problems.height - _MOST_PROBLEMS
    if left_out > 0:
        yield f"<p>The {_MOST_PROBLEMS:,} hardest; {left_out:,} more are left out here and counted above.</p>"
    heads = "".join(
        f'<th scope="col"{"" if name == "instance_id" else _NUMERIC}><button type="button">{title}</button></th>'
        for name, title in _COLUMNS.items()
    )
    yield '<div class="wide"><table class="sortable"><caption>Hardest first; press a heading to sort</caption>'
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for name, *values in problems.head(_MOST_PROBLEMS).select(*_COLUMNS).iter_rows():
        cells = "".join(_cell(value, column) for value, column in zip(values, list(_COLUMNS)[1:], strict=True))
        yield f'<tr><th scope="row">{_escape(name)}</th>{cells}</tr>'
    yield "</tbody></table></div>"


_NUMERIC = ' class="number"'


def _cell(value: float | None, column: str) -> str:
    """Return a table cell with the exact number for sorting, and a short one for reading."""
    if value is None:
        return f"<td{_NUMERIC}>-</td>"
    shown = share(value, 1.0) if column == "success_share" else number(value)
    return f'<td{_NUMERIC} data-value="{value}">{shown}</td>'


def _kinds(heading: str, what: str, kinds: dict[str, int]) -> Iterator[str]:
    if not kinds:
        return
    total = sum(kinds.values())
    yield f"<h2>{heading}</h2>"
    yield from _table(
        (what, "rollouts", "share"), ((kind, f"{count:,}", share(count, total)) for kind, count in kinds.items())
    )


def _duplicates(analysis: Analysis) -> Iterator[str]:
    yield "<h2>Duplicates</h2>"
    if analysis.duplicate_share is None:
        yield "<p>No completion is recorded, so none can be compared.</p>"
        return
    yield (
        f"<p>{counted(analysis.duplicates, 'completion')} ({analysis.duplicate_share:.1%}) equal to an earlier one of "
        f"the same problem. All completions are the same in {analysis.identical_problems:,} of "
        f"{counted(analysis.repeated_problems, 'problem')} with several.</p>"
    )


def _all_numbers(analysis: Analysis) -> Iterator[str]:
    yield "<h2>All numbers</h2><details><summary>Show the table</summary>"
    yield from _table(("measure", "value"), ((row["measure"], row["value"]) for row in analysis_rows(analysis)))
    yield "</details>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    head = "".join(f'<th scope="col">{_escape(name)}</th>' for name in heads)
    yield f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>'
    for first, *rest in rows:
        yield f'<tr><th scope="row">{_escape(first)}</th>{"".join(f"<td>{_escape(cell)}</td>" for cell in rest)}</tr>'
    yield "</tbody></table></div>"


def _picture_words(analysis: Analysis) -> str:
    return (
        f"Six panels: rewards, problems, lengths, model calls, success over sample index and ends of "
        f"{counted(analysis.rollouts, 'rollout')}; the numbers are in the tables of this page"
    )


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."
