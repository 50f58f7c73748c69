"""Exporters from parameters: functions that write the rows of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.exports.export_result import Exported
from rollmill.exports.preferences import export_preferences
from rollmill.exports.row_format import TrajectoryFormat
from rollmill.exports.sft import TokenBudget, export_sft
from rollmill.exports.trajectories import export_trajectory
from rollmill.jobs.curation.export_job import Exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import PairOptions, Sft, Splitting


def sft_exporter(path: Path, how: Sft, filters: Filters, *, allow_empty: bool = False) -> tuple[Exporter, Filters]:
    """Return the exporter of conversations, and the filters to apply before it.

    With a tokenizer, the limit on tokens moves from the filters to the exporter, which counts rows as they are written,
    without bookkeeping. Rollouts that were cut off or are excluded from training are dropped before the rollouts of a
    problem are compared.

    Args:
        path: the file.
        how: the parameters of the export.
        filters: the user's conditions.
        allow_empty: whether an export without any row is written; else it raises `InputError`.
    """
    budget = TokenBudget(filters.tokenizer, filters.max_tokens) if filters.tokenizer and filters.max_tokens else None

    def export(corpus: Corpus, kept: pl.DataFrame, origin: dict[str, Any]) -> Exported:
        return export_sft(
            path,
            corpus,
            kept,
            format=how.format,
            budget=budget,
            split=how.split,
            origin=origin,
            image_folders=how.image_folders,
            arguments=how.arguments,
            keep_truncated=how.keep_truncated,
            token_ids=how.token_ids,
            allow_empty=allow_empty,
        )

    before = {"drop_truncated": filters.drop_truncated or not how.keep_truncated, "drop_marked": True}
    return export, filters.model_copy(update=before | ({"max_tokens": None} if budget else {}))


def trajectory_exporter(
    path: Path,
    format: TrajectoryFormat = "recorded",  # noqa: A002  # the flag's name
    *,
    allow_empty: bool = False,
) -> Exporter:
    """Return the exporter of whole trajectories; without `allow_empty` it raises `InputError` for no rows."""

    def export(corpus: Corpus, kept: pl.DataFrame, origin: dict[str, Any]) -> Exported:
        return export_trajectory(path, corpus, kept, format=format, origin=origin, allow_empty=allow_empty)

    return export


def preference_exporter(path: Path, pairs: PairOptions, how: Splitting, *, allow_empty: bool = False) -> Exporter:
    """Return the exporter of preference pairs.

    Args:
        path: the file.
        pairs: the parameters of the pairs.
        how: the parameters of the split.
        allow_empty: whether an export without any row is written; else it raises `InputError`.
    """

    def export(corpus: Corpus, kept: pl.DataFrame, origin: dict[str, Any]) -> Exported:
        margin, most = pairs.min_margin, pairs.max_pairs
        return export_preferences(
            path,
            corpus,
            kept,
            min_margin=margin,
            max_pairs=most,
            split=how.split,
            origin=origin,
            image_folders=pairs.image_folders,
            arguments=pairs.arguments,
            keep_truncated=pairs.keep_truncated,
            allow_empty=allow_empty,
        )

    return export
