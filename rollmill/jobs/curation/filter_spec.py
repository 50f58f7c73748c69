"""The filters as parameters. Every command line imports them, so this module must not import Polars."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from rollmill.config.parameter import Parameters, parameter
from rollmill.errors import InputError
from rollmill.jobs.curation.columns import SQL_COLUMNS

_GROUP = "Which rollouts"
_COLUMNS_OF_PAIRED_CALLS = ("unanswered_calls", "stray_results")
"""Columns for which tool calls must be matched with their results: calls without result, results without call."""


class Filters(Parameters):
    """Conditions on rollouts, and then limits per problem; without any, everything is kept.

    A rollout is kept if it meets all conditions. Of those, each problem's duplicates, near-duplicates, `best_k` and
    `at_most_k` are applied in this order, each to what the one before has left.
    """

    min_reward: float | None = parameter(
        None, _GROUP, "Least reward", "Keep rewards of at least this.", allow_inf_nan=False
    )
    max_reward: float | None = parameter(
        None, _GROUP, "Greatest reward", "Keep rewards of at most this.", allow_inf_nan=False
    )
    successful_only: bool = parameter(False, _GROUP, "Successful only", "Keep only rollouts that succeeded.")
    unsuccessful_only: bool = parameter(False, _GROUP, "Unsuccessful only", "Keep only rollouts that did not succeed.")
    min_speedup: float | None = parameter(
        None, _GROUP, "Least speedup", "Keep speedups of at least this.", allow_inf_nan=False
    )
    min_messages: int | None = parameter(
        None, _GROUP, "Fewest messages", "Keep rollouts of at least this many messages.", ge=0
    )
    max_messages: int | None = parameter(
        None, _GROUP, "Most messages", "Keep rollouts of at most this many messages.", ge=0
    )
    min_tokens: int | None = parameter(
        None, _GROUP, "Fewest tokens", "Keep rollouts of at least this many tokens.", ge=0
    )
    max_tokens: int | None = parameter(None, _GROUP, "Most tokens", "Keep rollouts of at most this many tokens.", ge=1)
    tokenizer: str | None = parameter(
        None, _GROUP, "Tokenizer", "Count tokens with this tokenizer (directory or hub id); else use recorded counts.",
        metavar="PATH",
    )  # fmt: skip
    exit_status: list[str] = parameter(
        [], _GROUP, "Exit statuses", "Keep only rollouts whose agent ended with one of these, such as Submitted.",
        metavar="STATUS",
    )  # fmt: skip
    drop_errors: list[str] = parameter(
        [],
        _GROUP,
        "Errors to drop",
        "Drop failures of these kinds; 'any' for all rollouts with an error.",
        metavar="KIND",
    )
    drop_unparseable: bool = parameter(
        False, _GROUP, "Drop the unparseable", "Drop rollouts in which no answer was found."
    )
    drop_truncated: bool = parameter(
        False, _GROUP, "Drop the truncated", "Drop completions that were cut off at the limit on tokens."
    )
    drop_marked: bool = parameter(
        False,
        _GROUP,
        "Drop the marked",
        "Drop rollouts that are marked as excluded from training (exports do so without this flag).",
    )
    where: str | None = parameter(
        None, _GROUP, "Condition", metavar="SQL",
        description=f"SQL expression, such as 'reward > 0.5 AND turns < 30', over {', '.join(SQL_COLUMNS)}.",
    )  # fmt: skip
    drop_empty: bool = parameter(False, _GROUP, "Drop the empty", "Drop rollouts in which the model wrote nothing.")
    drop_duplicates: bool = parameter(
        False, _GROUP, "Drop duplicates", "Of equal completions to one problem, keep the first."
    )
    near_duplicates: float | None = parameter(
        None, _GROUP, "Near-duplicates",
        "Of a problem's completions with at least this Jaccard index (5-grams of words; say 0.8), keep the first.",
        gt=0, le=1,
    )  # fmt: skip
    benchmark: list[str] = parameter(
        [], _GROUP, "Benchmarks", "Drop rollouts that share an n-gram of words with these files (JSON, Parquet, text).",
        metavar="FILE",
    )  # fmt: skip
    benchmark_ngram: int = parameter(
        13, _GROUP, "Words in common", "Words in an n-gram that --benchmark looks for.", ge=5
    )
    best_k: int | None = parameter(
        None,
        _GROUP,
        "Best of a problem",
        "Keep the k best of every problem: by answer error, then by reward.",
        metavar="K",
        ge=1,
    )
    at_most_k: int | None = parameter(
        None, _GROUP, "Most of a problem", "Keep the first k rollouts of every problem.", metavar="K", ge=1
    )

    @property
    def needs_costly_columns(self) -> bool:
        """Return whether the corpus must be read with completion hashes and matched calls, which takes longer.

        Near-duplicates need neither: their signatures are computed from the texts later, of the rows that are left.
        """
        return self.drop_duplicates or any(name in (self.where or "") for name in _COLUMNS_OF_PAIRED_CALLS)

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.successful_only and self.unsuccessful_only:
            raise ValueError("--successful_only and --unsuccessful_only together keep nothing: give one of them")
        for name in ("reward", "messages", "tokens"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if least is not None and most is not None and least > most:
                raise ValueError(
                    f"--min_{name} {least:.12g} is more than --max_{name} {most:.12g}: together they keep nothing"
                )
        if self.where is not None:
            from rollmill.jobs.curation import rules

            try:
                rules.where(self.where)
            except InputError as error:
                raise ValueError(str(error)) from error
        return self
