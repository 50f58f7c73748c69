"""One row per problem: numbers of its rollouts, successes, rewards, duplicates."""

from __future__ import annotations

import polars as pl

from rollmill.reports.plots.histogram import LARGEST

REWARD = pl.col("reward").filter(pl.col("reward").is_finite()).clip(-LARGEST, LARGEST)
"""The finite rewards."""
WRITTEN = pl.col("completion_hash").filter(~pl.col("empty").fill_null(value=False)).drop_nulls()
"""Hashes of completions that are not empty: empty ones are equal without being copies."""


def per_problem(rollouts: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row per `instance_id` of a table of rollouts, in no particular order.

    `samples`: rollouts. `failed`: those with an error. `judged`: those whose `success` is known. `successes`.
    `success_share`: of the judged, null where none is. `mean_reward`, `best_reward`, `least_reward`: null where no
    reward is known. `written`: completions that are not empty. `duplicates`: those of them beyond the first of equals.
    """
    return (
        rollouts.group_by("instance_id")
        .agg(
            pl.len().cast(pl.Int64).alias("samples"),
            (pl.col("status") == "failed").sum().cast(pl.Int64).alias("failed"),
            pl.col("success").count().cast(pl.Int64).alias("judged"),
            pl.col("success").sum().cast(pl.Int64).alias("successes"),
            REWARD.mean().alias("mean_reward"),
            REWARD.max().alias("best_reward"),
            REWARD.min().alias("least_reward"),
            WRITTEN.len().cast(pl.Int64).alias("written"),
            (WRITTEN.len().cast(pl.Int64) - WRITTEN.n_unique().cast(pl.Int64)).alias("duplicates"),
        )
        .with_columns(
            pl.when(pl.col("judged") > 0).then(pl.col("successes") / pl.col("judged")).alias("success_share"),
        )
    )


def hardest_first(problems: pl.DataFrame) -> pl.DataFrame:
    """Return the problems sorted by success share, mean reward and name; those without either come last."""
    return problems.sort("success_share", "mean_reward", "instance_id", nulls_last=True)
