"""Comparison of several runs: a table with one row for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from rollmill.jobs.rejection_sampling.report import number, share
from rollmill.jobs.rejection_sampling.statistics import Statistics
from rollmill.terminal.text_table import aligned


class ComparisonRow(BaseModel):
    """One run; None for a value that it does not have."""

    model_config = ConfigDict(frozen=True)

    model: str
    problems: int
    rollouts: int
    """Number of judged rollouts: ok and unparseable."""
    parse_rate: float | None
    accepted: float | None
    """Accepted share of the judged rollouts."""
    mean_error: float | None
    mean_least_error: float | None
    pass_at_1: float | None
    pass_at_n: float | None
    guess_baseline: float | None


_COLUMNS = {
    "model": "model",
    "problems": "problems",
    "rollouts": "rollouts",
    "parse_rate": "parsed",
    "accepted": "accepted",
    "mean_error": "mean error",
    "mean_least_error": "mean least error",
    "pass_at_1": "pass@1",
    "pass_at_n": "pass@N",
    "guess_baseline": "guessing",
}
_SHARES = {"parse_rate", "accepted", "pass_at_1", "pass_at_n"}


def compare(runs: Iterable[tuple[str, Statistics]]) -> list[ComparisonRow]:
    """Return one row per (name of the model, statistics), in this order."""
    return [
        ComparisonRow(
            model=model,
            problems=statistics.problems,
            rollouts=statistics.coverage.judged,
            parse_rate=statistics.parse_rate,
            accepted=statistics.accepted_of_judged,
            mean_error=statistics.error.mean if statistics.error else None,
            mean_least_error=statistics.least_error.mean if statistics.least_error else None,
            pass_at_1=statistics.pass_at_k[0].value,
            pass_at_n=statistics.pass_at_k[-1].value,
            guess_baseline=statistics.guess_baseline.mean_least_error,
        )
        for model, statistics in runs
    ]


def comparison_cells(rows: Sequence[ComparisonRow]) -> list[dict[str, str]]:
    """Return the rows as texts by column title."""
    return [{title: _cell(row, name) for name, title in _COLUMNS.items()} for row in rows]


def format_comparison(rows: Sequence[ComparisonRow]) -> str:
    """Return an aligned text table, with a newline at the end."""
    return "\n".join(aligned(list(_COLUMNS.values()), comparison_cells(rows))) + "\n"


def _cell(row: ComparisonRow, name: str) -> str:
    value = getattr(row, name)
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return share(value) if name in _SHARES else number(value)
