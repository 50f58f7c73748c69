"""Analysis of a table of rollouts: its numbers."""

from __future__ import annotations

from typing import Any

import polars as pl

from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.jobs.curation.per_problem import REWARD, per_problem
from rollmill.reports.plots.histogram import make_histogram
from rollmill.statistics.intervals import wilson_interval
from rollmill.statistics.summary import LARGE, SummaryStats

_MOST_KINDS = 40
_MOST_SAMPLE_COUNTS = 20
_QUANTILES = {"p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95}


_SPREADS = ("reward", "answer_error", "speedup", "model_calls", "messages", "tokens", "completion_tokens")
_KINDS = {"exit_statuses": "exit_status", "errors": "error_type", "finish_reasons": "finish_reason"}


def analyse(table: pl.DataFrame, *, quarantined: int = 0) -> Analysis:
    """Return the numbers of a table with the columns of `rollmill.corpus.table.SCHEMA`.

    `quarantined` is the number of bad rows of the input.
    """
    from rollmill.jobs.curation.analysis_notes import make_notes

    rows = table.lazy()
    scalars, rewards, problems, *kinds = pl.collect_all(
        [
            rows.select(*_counts(), *(part for name in _SPREADS for part in _spread_parts(_number(name), name))),
            rows.select(REWARD.alias("reward")).group_by("reward").len(),
            per_problem(rows),
            *(_count_kinds(rows, column) for column in _KINDS.values()),
        ]
    )
    numbers: dict[str, Any] = scalars.row(0, named=True)
    values: dict[str, Any] = {
        **{name: value for name, value in numbers.items() if "." not in name},
        **{name: _spread(numbers, name) for name in _SPREADS},
        **{name: _at_most(kind, _MOST_KINDS) for name, kind in zip(_KINDS, kinds, strict=True)},
        **_problem_numbers(problems),
        "quarantined": quarantined,
        "success_rate": numbers["successes"] / numbers["verdicts"] if numbers["verdicts"] else None,
        "success_interval": wilson_interval(numbers["successes"], numbers["verdicts"]),
        "reward_histogram": make_histogram(rewards["reward"].to_numpy(), rewards["len"].to_numpy()),
    }
    analysis = Analysis(**values, notes=[])
    return analysis.model_copy(update={"notes": make_notes(analysis)})


def summarise_spread(numbers: pl.Series) -> SummaryStats | None:
    """Return the summary statistics of a column's finite numbers; None where there are none."""
    values = pl.col("x").filter(pl.col("x").is_finite())
    row = numbers.cast(pl.Float64).alias("x").to_frame().select(*_spread_parts(values, "x")).row(0, named=True)
    return _spread(row, "x")


def _counts() -> list[pl.Expr]:
    failed = pl.col("status") == "failed"
    contradicted = pl.col("claimed_success") & ~pl.col("success")
    counts = {
        "failed": failed,
        "judged": ~failed,
        "unparseable": pl.col("status") == "unparseable",
        "empty": pl.col("empty"),
        "reasoning_only": pl.col("reasoning_only"),
        "truncated": pl.col("truncated"),
        "marked": pl.col("marked"),
        "unanswered_calls": pl.col("unanswered_calls"),
        "stray_results": pl.col("stray_results"),
        "verdicts": pl.col("success").is_not_null(),
        "successes": pl.col("success"),
        "contradicted": contradicted,
        "reward_missing": ~failed & ~pl.col("reward").is_finite().fill_null(value=False),
    }
    calls = pl.col("model_calls")
    return [
        pl.len().cast(pl.Int64).alias("rollouts"),
        pl.col("instance_id").n_unique().cast(pl.Int64).alias("problems"),
        pl.when(calls.count() > 0).then(calls.sum()).alias("total_model_calls"),
        *(condition.sum().cast(pl.Int64).alias(name) for name, condition in counts.items()),
    ]


def _number(column: str) -> pl.Expr:
    number = pl.col(column).cast(pl.Float64)
    return number.filter(number.is_finite())


def _spread_parts(numbers: pl.Expr, name: str) -> list[pl.Expr]:
    """Return an expression for each statistic, named `name.count` and so on."""
    # Squares of very large numbers overflow: these are scaled down, and the results up again.
    largest = numbers.abs().max()
    scale = pl.when(largest > LARGE).then(largest).otherwise(1.0)
    scaled = (numbers / scale).sort()  # once: each quantile of unsorted numbers would sort again
    parts = {
        "count": numbers.len().cast(pl.Int64),
        "mean": scaled.mean() * scale,
        "std": scaled.std(ddof=0) * scale,
        "min": numbers.min(),
        "max": numbers.max(),
        **{key: scaled.quantile(quantile, "linear") * scale for key, quantile in _QUANTILES.items()},
    }
    return [part.alias(f"{name}.{key}") for key, part in parts.items()]


def _spread(numbers: dict[str, Any], name: str) -> SummaryStats | None:
    parts = {key: numbers[f"{name}.{key}"] for key in SummaryStats.model_fields}
    if not parts["count"]:
        return None
    for key in ("mean", *_QUANTILES):  # scaling rounds, which may exceed the extremes
        parts[key] = min(max(parts[key], parts["min"]), parts["max"])
    return SummaryStats(**parts)


def _count_kinds(rows: pl.LazyFrame, column: str) -> pl.LazyFrame:
    kinds = rows.select(pl.col(column).alias("kind")).drop_nulls().group_by("kind").len()
    return kinds.sort("len", "kind", descending=[True, False])


def _at_most(kinds: pl.DataFrame, most: int) -> dict[str, int]:
    counted = dict(kinds.head(most).iter_rows())
    others = kinds.slice(most)
    return {**counted, f"({others.height:,} other kinds)": int(others["len"].sum())} if others.height else counted


def _problem_numbers(problems: pl.DataFrame) -> dict[str, Any]:
    samples = problems["samples"].value_counts().sort("samples")
    judged = problems.filter(pl.col("judged") > 0)
    successes, verdicts = judged["successes"], judged["judged"]
    none, every = int((successes == 0).sum()), int((successes == verdicts).sum())
    repeated = problems.filter(pl.col("written") > 1)
    duplicates, written = int(problems["duplicates"].sum()), int(problems["written"].sum())
    means = problems["mean_reward"].drop_nulls()
    return {
        "samples_per_problem": summarise_spread(problems["samples"]),
        "samples_counts": dict(samples.iter_rows()) if samples.height <= _MOST_SAMPLE_COUNTS else None,
        "problem_reward": summarise_spread(means),
        "problem_reward_histogram": make_histogram(means.to_numpy()),
        "problems_none_right": none,
        "problems_some_right": judged.height - none - every,
        "problems_all_right": every,
        "problems_unjudged": problems.height - judged.height,
        "duplicates": duplicates,
        "duplicate_share": duplicates / written if written else None,
        "repeated_problems": repeated.height,
        "identical_problems": int((repeated["duplicates"] == repeated["written"] - 1).sum()),
    }
