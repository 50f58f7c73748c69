"""Exporters: what a user asked of an export, as the function that writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.exports.export_result import Exported
from rollmill.exports.preferences import export_preferences
from rollmill.exports.sft import TokenBudget, export_sft
from rollmill.exports.trajectories import export_trajectory
from rollmill.jobs.curation.export_job import Exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import PairOptions, Sft, Splitting


def sft_exporter(path: Path, how: Sft, filters: Filters) -> tuple[Exporter, Filters]:
    """The exporter, and the filters before it: the longest row is measured as it is written, bookkeeping removed."""
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
        )

    return export, filters.model_copy(update={"max_tokens": None}) if budget else filters


def trajectory_exporter(path: Path) -> Exporter:
    """Whole trajectories."""

    def export(corpus: Corpus, kept: pl.DataFrame, origin: dict[str, Any]) -> Exported:
        return export_trajectory(path, corpus, kept, origin=origin)

    return export


def preference_exporter(path: Path, pairs: PairOptions, how: Splitting) -> Exporter:
    """Pairs of one problem."""

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
        )

    return export
