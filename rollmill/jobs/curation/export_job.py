"""Export of a corpus: filter it, write training rows, and a dataset card beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.exports.card import write_card
from rollmill.exports.export_result import Exported, count_reasons
from rollmill.exports.training_file import NothingUsableError
from rollmill.jobs.curation.dropped import dropped_line, positions_path, write_positions
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.select_rollouts import all_filters, select
from rollmill.reports.plots.labels import counted

Exporter = Callable[[Corpus, pl.DataFrame, dict[str, Any]], Exported]
"""Writes rows of a corpus's table; takes the corpus, the rows and the origin."""


class ExportOutcome(NamedTuple):
    """The result of an export, with the count of every rollout: `kept` + all `reasons` = `read`."""

    exported: Exported
    card: Path
    dropped_path: Path
    read: int
    kept: int
    reasons: dict[str, int]
    notes: list[str]

    def lines(self) -> list[str]:
        """Return the lines for the user."""
        files = [
            f"{split}: {counted(self.exported.rows[split], 'row')} of "
            f"{counted(self.exported.problems[split], 'problem')}: {path}"
            for split, path in self.exported.files.items()
        ]
        return [
            f"used {self.kept:,} of {self.read:,} rollouts",
            *files,
            dropped_line(self.read - self.kept, self.reasons, self.dropped_path),
            f"card: {self.card}",
            *self.exported.notes,
            *self.notes,
        ]


def export_corpus(
    corpus: Corpus, filters: Filters, exporter: Exporter, *, origin: dict[str, Any] | None = None
) -> ExportOutcome:
    """Filter a corpus and export the rest. Failed rollouts, and those excluded from training, are never exported.

    Beside the export are its card, and `<stem>.dropped.jsonl` with position and reason of every other rollout. Raises
    as `select` and the exporter do.

    Args:
        corpus: the rollouts that were read.
        filters: the conditions.
        exporter: writes the kept rows.
        origin: fields for the metadata of every row; None: the inputs' model and identity.
    """
    origin = _origin(corpus) if origin is None else origin
    selected = select(corpus, filters.model_copy(update={"drop_errors": ["any"]}))
    filtered = count_reasons(selected.dropped)
    try:
        exported = exporter(corpus, selected.kept, origin)
    except NothingUsableError as error:  # the exporter does not know which rollouts were filtered before
        raise NothingUsableError(error.path, filtered | error.reasons) from None
    card = write_card(
        exported,
        corpus=corpus,
        filters=all_filters(corpus, selected.descriptions),
        filtered=filtered,
        origin=origin,
    )
    dropped = _all_dropped(selected.judged, exported.dropped)
    positions = positions_path(exported.files["train"])
    write_positions(positions, corpus, dropped)
    return ExportOutcome(
        exported, card, positions, selected.judged.height, exported.kept, count_reasons(dropped), selected.notes
    )


def _origin(corpus: Corpus) -> dict[str, Any]:
    known = {"model": corpus.metadata.get("model_name"), "identity": corpus.metadata.get("identity")}
    return {key: value for key, value in known.items() if value is not None}


def _all_dropped(judged: pl.DataFrame, dropped: pl.DataFrame) -> pl.DataFrame:
    """Return the rollouts dropped by filters or by the export, with their reasons."""
    later = judged.join(dropped.rename({"drop_reason": "later"}), on="row", how="left", maintain_order="left")
    reason = pl.coalesce("drop_reason", "later")
    return later.with_columns(reason.alias("drop_reason")).drop("later").filter(pl.col("drop_reason").is_not_null())
