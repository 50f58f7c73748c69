"""Accuracy of a policy, and the paired difference between two policies, with bootstrap intervals.

The bootstrap resamples problems, because rollouts of one problem are not independent. Intervals are percentile
intervals of the mean over problems (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from rollmill.errors import InputError
from rollmill.statistics.intervals import bootstrap_interval

FEWEST = 10
"""Least number of problems for a significant difference: the bootstrap of a few equal values has a width of 0."""


class Accuracy(BaseModel):
    """Mean over problems of the share of right rollouts, from 0 to 1, and its 95% interval."""

    model_config = ConfigDict(frozen=True)

    problems: int
    """Problems with at least one judged rollout."""
    rollouts: int
    """Rollouts with a verdict."""
    failed: int
    """Rollouts without a verdict, which count in no share."""
    mean: float = Field(allow_inf_nan=False)
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)


class Difference(BaseModel):
    """Accuracy of the second policy minus that of the first, on the problems that both were judged on."""

    model_config = ConfigDict(frozen=True)

    problems: int
    mean: float = Field(allow_inf_nan=False)
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)

    @property
    def better(self) -> bool:
        """Return whether the second policy is significantly better: interval above 0, at least `FEWEST` problems."""
        return self.low > 0 and self.problems >= FEWEST

    @property
    def worse(self) -> bool:
        """Return whether the second policy is significantly worse: interval below 0, at least `FEWEST` problems."""
        return self.high < 0 and self.problems >= FEWEST


def accuracy(table: pl.DataFrame, *, seed: int = 0) -> Accuracy:
    """Compute the accuracy from a table with the columns `instance_id` and `success`.

    Raises `InputError` where no rollout has a verdict.
    """
    shares = _shares(table)
    if not shares.height:
        raise InputError(f"none of {table.height:,} rollouts has a verdict: there is no accuracy")
    values = shares["share"].to_numpy()
    low, high = bootstrap_interval(values, seed)
    judged = int(table["success"].is_not_null().sum())
    return Accuracy(
        problems=shares.height,
        rollouts=judged,
        failed=table.height - judged,
        mean=float(values.mean()),
        low=low,
        high=high,
    )


def paired_difference(before: pl.DataFrame, after: pl.DataFrame, *, seed: int = 0) -> Difference:
    """Compute the difference in accuracy between two policies' tables, paired by problem.

    Raises `InputError` where the tables share no judged problem.
    """
    pairs = _shares(before).join(_shares(after), on="instance_id", suffix="_after", maintain_order="left")
    if not pairs.height:
        raise InputError("the two evaluations share no judged problem: nothing can be compared")
    values = (pairs["share_after"] - pairs["share"]).to_numpy()
    low, high = bootstrap_interval(values, seed)
    return Difference(problems=pairs.height, mean=float(values.mean()), low=low, high=high)


def _shares(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with one row per judged problem, sorted by id: `instance_id`, and `share` of right rollouts."""
    judged = table.filter(pl.col("success").is_not_null())
    return judged.group_by("instance_id").agg(pl.col("success").mean().alias("share")).sort("instance_id")
