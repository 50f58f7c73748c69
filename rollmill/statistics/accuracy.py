"""Accuracy on problems, and the difference between two policies on the same ones, with bootstrap intervals.

The problem is the unit that is drawn: rollouts of one problem are not independent. Intervals are percentile intervals
of the mean over problems (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from rollmill.errors import InputError
from rollmill.statistics.intervals import bootstrap_interval

FEWEST = 10
"""Problems below which no difference counts: the bootstrap of a few equal values sees no noise at all."""


class Accuracy(BaseModel):
    """Mean share of right rollouts over problems, between 0 and 1, and its 95% interval."""

    model_config = ConfigDict(frozen=True)

    problems: int
    """With at least one judged rollout."""
    rollouts: int
    """Judged."""
    failed: int
    """Without a verdict: in no share."""
    mean: float = Field(allow_inf_nan=False)
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)


class Difference(BaseModel):
    """By how much the second policy's accuracy is higher, on the problems that both were judged on."""

    model_config = ConfigDict(frozen=True)

    problems: int
    mean: float = Field(allow_inf_nan=False)
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)

    @property
    def better(self) -> bool:
        """Tell whether it is better beyond noise: the whole interval is above 0, on at least `FEWEST` problems."""
        return self.low > 0 and self.problems >= FEWEST

    @property
    def worse(self) -> bool:
        """Tell whether it is worse beyond noise."""
        return self.high < 0 and self.problems >= FEWEST


def accuracy(table: pl.DataFrame, *, seed: int = 0) -> Accuracy:
    """Compute the accuracy that a table of rollouts shows. Raises `InputError` where none of them was judged."""
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
    """Compute the difference between two policies' tables, paired by problem.

    Raises `InputError` where they share none.
    """
    pairs = _shares(before).join(_shares(after), on="instance_id", suffix="_after", maintain_order="left")
    if not pairs.height:
        raise InputError("the two evaluations share no judged problem: nothing can be compared")
    values = (pairs["share_after"] - pairs["share"]).to_numpy()
    low, high = bootstrap_interval(values, seed)
    return Difference(problems=pairs.height, mean=float(values.mean()), low=low, high=high)


def _shares(table: pl.DataFrame) -> pl.DataFrame:
    """Return, per problem and in order of ids, the share of its judged rollouts that are right."""
    judged = table.filter(pl.col("success").is_not_null())
    return judged.group_by("instance_id").agg(pl.col("success").mean().alias("share")).sort("instance_id")
