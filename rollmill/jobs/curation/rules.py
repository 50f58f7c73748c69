"""Rules: each is an expression over the table that is true for the rows it drops.

They are applied in order in one lazy plan, and the first rule that drops a row is its `drop_reason`. Rules that compare
the rollouts of a problem see only those that earlier rules have kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import polars as pl

from rollmill.corpus.table import SCHEMA
from rollmill.errors import InputError
from rollmill.jobs.curation.columns import SQL_COLUMNS
from rollmill.jobs.curation.signatures import near_duplicates
from rollmill.jobs.curation.where_text import fault

LEFT = pl.col("drop_reason").is_null()
"""Rows that no earlier rule has dropped."""

WHERE = "where"
"""The drop reason of a user's own expression."""

_UNSIGNED = pl.Schema(
    {name: kind for name, kind in SCHEMA.items() if name in SQL_COLUMNS and kind.is_unsigned_integer()}
)


class Rule(NamedTuple):
    """A drop reason, an expression for the rows to drop (never null), and the description of the rows that stay."""

    reason: str
    drops: pl.Expr
    description: str
    needs_text: bool = False
    """True if its columns must first be computed from the rollouts' texts."""


def apply(table: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Return the table with a column `drop_reason`: null for rows that every rule keeps.

    Raises `InputError` where a user's expression (see `where`) cannot be computed for some row.
    """
    plan = table.lazy().with_columns(pl.lit(None, pl.String).alias("drop_reason"))
    for rule in rules:
        reason = pl.when(LEFT & rule.drops).then(pl.lit(rule.reason)).otherwise("drop_reason")
        judged = reason.alias("drop_reason")
        if rule.reason == WHERE:
            # Signed, so that a user's `turns - messages` can be negative instead of wrapping around.
            plan = plan.cast(dict.fromkeys(_UNSIGNED, pl.Int64)).with_columns(judged).cast(_UNSIGNED)
        else:
            plan = plan.with_columns(judged)
    try:
        return plan.collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        expression = next((rule.description for rule in rules if rule.reason == WHERE), None)
        if expression is None:
            raise
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--{expression}: cannot be worked out for every rollout: {why}") from error


def failed() -> Rule:
    """Drop failed rollouts: an error outside of the model is no verdict on it."""
    return Rule("failed", pl.col("error_type").is_not_null(), "without an error")


def error_kinds(kinds: Sequence[str]) -> Rule:
    """Drop rollouts that failed with these kinds of errors."""
    return Rule("failed", pl.col("error_type").is_in(list(kinds)).fill_null(False), f"no error {', '.join(kinds)}")


def unparseable() -> Rule:
    """Drop judged rollouts without an answer."""
    return Rule("unparseable", pl.col("status") == "unparseable", "with an answer that can be read")


def truncated() -> Rule:
    """Drop rollouts that were cut off at the limit on tokens."""
    return Rule("truncated", pl.col("truncated").fill_null(False), "not cut off at the limit on tokens")


def marked() -> Rule:
    """Drop rollouts that are marked as excluded from training."""
    return Rule("marked_not_for_training", pl.col("marked").fill_null(False), "not marked against training")


def not_successful() -> Rule:
    """Drop rollouts whose `success` is false, or unknown."""
    return Rule("not_successful", ~pl.col("success").fill_null(False), "successful only")


def successful() -> Rule:
    """Drop rollouts whose `success` is true, or unknown."""
    return Rule("not_unsuccessful", pl.col("success").fill_null(True), "unsuccessful only")


def at_least(column: str, least: float) -> list[Rule]:
    """Drop rollouts without a number, or with a lower one."""
    return [_missing(column), Rule(f"{column}_below_min", pl.col(column) < least, f"{column} at least {least:.12g}")]


def at_most(column: str, most: float) -> list[Rule]:
    """Drop rollouts without a number, or with a higher one."""
    return [_missing(column), Rule(f"{column}_above_max", pl.col(column) > most, f"{column} at most {most:.12g}")]


def _missing(column: str) -> Rule:
    return Rule(f"no_{column}", pl.col(column).is_null(), f"{column} known")


def exit_status(statuses: Sequence[str]) -> Rule:
    """Drop rollouts with another exit status, or none."""
    listed = pl.col("exit_status").is_in(list(statuses)).fill_null(False)
    return Rule("exit_status", ~listed, f"exit status {' or '.join(statuses)}")


def where(expression: str) -> Rule:
    """Drop rows for which the expression is false or null. An aggregate in it is over all rows that were read.

    Raises `InputError` for text that is no SQL expression, uses other columns, or is not Boolean.
    """
    columns = ", ".join(SQL_COLUMNS)
    if why := fault(expression):
        raise InputError(f"--where {expression[:200]!r} is no SQL expression over the columns {columns}: {why}")
    try:
        parsed = pl.sql_expr(expression)
        unknown = sorted(set(parsed.meta.root_names()) - set(SQL_COLUMNS))
        if unknown:
            raise InputError(f"--where {expression!r}: there is no column {', '.join(unknown)}; there are {columns}")
        kind = pl.DataFrame(schema=SCHEMA).lazy().select(parsed.alias("where")).collect_schema()["where"]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--where {expression!r} is no SQL expression over the columns {columns}: {reason}") from error
    if kind != pl.Boolean:
        raise InputError(f"--where {expression!r} is of type {kind}, neither true nor false: compare it with something")
    return Rule(WHERE, ~parsed.fill_null(False), f"where {expression}")


def empty() -> Rule:
    """Drop rollouts whose model wrote nothing but white space, where its messages are recorded."""
    return Rule("empty_completion", pl.col("empty").fill_null(False), "with words of the model")


def duplicate() -> Rule:
    """Drop rollouts that are equal to an earlier one of their problem; empty ones are no duplicates."""
    repeated = LEFT.cum_sum().over("instance_id", "completion_hash") > 1
    written = pl.col("completion_hash").is_not_null() & ~pl.col("empty").fill_null(False)
    return Rule("duplicate_completion", repeated & written, "no duplicates within a problem")


def near_duplicate(threshold: float) -> Rule:
    """Drop rollouts that are similar to an earlier one of their problem."""
    columns = pl.struct("instance_id", "signature", LEFT.alias("alive"))
    duplicates = columns.map_batches(partial(near_duplicates, threshold=threshold), return_dtype=pl.Boolean)
    return Rule(
        "near_duplicate", duplicates, f"no near-duplicates within a problem (Jaccard {threshold:g})", needs_text=True
    )


def contaminated(files: Sequence[str], ngram: int) -> Rule:
    """Drop rollouts that share an n-gram of words with a benchmark."""
    description = f"no n-gram of {ngram} words in common with {', '.join(files)}"
    return Rule("contaminated", pl.col("contaminated_by").is_not_null(), description, needs_text=True)


def beyond_best(count: int) -> Rule:
    """Drop all but the best `count` of a problem: least answer error, highest reward, lowest sample id."""
    keys = [
        ~LEFT,
        pl.col("answer_error").fill_null(float("inf")),
        -pl.col("reward").fill_null(float("-inf")),
        pl.col("sample_id"),
        pl.col("row"),
    ]
    rank = pl.int_range(pl.len()).over("instance_id", order_by=keys)
    return Rule("not_best", rank >= count, f"the best {count} of a problem")


def beyond_first(count: int) -> Rule:
    """Drop all but the first `count` of a problem."""
    return Rule("over_limit", LEFT.cum_sum().over("instance_id") > count, f"at most {count} of a problem")
