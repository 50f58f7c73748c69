"""The result of an export: its files, and for every rollout that is in none the reason."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

Form = Literal["messages", "prompt_completion", "preferences", "trajectories"]

DROPPED_SCHEMA: dict[str, pl.DataType] = {"row": pl.UInt32(), "drop_reason": pl.String()}


class Exported(NamedTuple):
    """The files of one export by split (`train`, `validation`), the counts, and the dropped rollouts."""

    form: Form
    files: dict[str, Path]
    rows: dict[str, int]
    """Lines (of preferences: pairs) in each file."""
    problems: dict[str, int]
    kept: int
    """Number of rollouts in the files."""
    dropped: pl.DataFrame
    """Table of `row` and `drop_reason` of every other rollout, sorted by `row`."""
    notes: tuple[str, ...] = ()
    """Remarks for the user about the written rows."""

    @property
    def reasons(self) -> dict[str, int]:
        """Number of rollouts by the reason that dropped them, most frequent first."""
        return count_reasons(self.dropped)


def count_reasons(dropped: pl.DataFrame) -> dict[str, int]:
    """Return the number of rows by `drop_reason`, most frequent first."""
    counted = dropped.group_by("drop_reason").len().sort("len", "drop_reason", descending=[True, False])
    return dict(counted.iter_rows())


def dropped_table(rows: pl.DataFrame, used: Iterable[int], dropped: Iterable[tuple[int, str]]) -> pl.DataFrame:
    """Return the dropped rows as a table, sorted by row.

    Raises `RuntimeError` where not every one of `rows` is used or dropped exactly once: a bug in rollmill.
    """
    table = pl.DataFrame(list(dropped), schema=DROPPED_SCHEMA, orient="row").sort("row")
    seen = pl.concat([pl.Series("row", list(used), dtype=pl.UInt32), table["row"]])
    if not seen.sort().equals(rows["row"].cast(pl.UInt32).sort()):
        raise RuntimeError(
            f"rows lost in the export, a bug in rollmill: {rows.height} given, "
            f"{seen.len() - table.height} used, {table.height} dropped"
        )
    return table


def empty_notes(rows: pl.DataFrame) -> list[str]:
    """Return a note on kept rollouts in which the model wrote nothing, without those that failed."""
    is_empty = pl.col("empty").fill_null(value=False) & (pl.col("turns") > 0) & pl.col("status").ne("failed")
    count = rows.select(is_empty.sum()).item()
    return [f"in {count:,} of them the model wrote nothing: --drop_empty leaves them out"] if count else []
