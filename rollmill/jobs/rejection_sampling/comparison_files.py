"""Writes the comparison of several runs of one call, beside their directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rollmill.corpus.corpus import read_corpus
from rollmill.files.atomic import atomic_write_bytes
from rollmill.jobs.rejection_sampling.comparison import compare, comparison_cells, format_comparison
from rollmill.jobs.rejection_sampling.outcome import RunOutcome
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.reports.paired_comparison import compare_with_first
from rollmill.reports.plots.comparison import ModelScores, draw_comparison


class ComparisonFiles(NamedTuple):
    """Files of a comparison, and the cells of its table."""

    table: Path
    plot: Path
    cells: list[dict[str, str]]

    @property
    def directory(self) -> Path:
        """The output directory, which also has the runs' directories."""
        return self.table.parent

    @property
    def files(self) -> dict[str, Path]:
        """The files that were written, by their content."""
        return {"comparison": self.table, "plot": self.plot}


def write_comparison(parameters: RejectSampling, outcomes: Sequence[RunOutcome]) -> ComparisonFiles:
    """Write `comparison.txt` and `comparison.png` into the output directory."""
    rows = compare((outcome.name, outcome.statistics) for outcome in outcomes)
    folder = Path(parameters.output_dir)
    comparison = ComparisonFiles(folder / "comparison.txt", folder / "comparison.png", comparison_cells(rows))
    tables = [(outcome.name, read_corpus([str(outcome.directory)], hashed=False).table) for outcome in outcomes]
    paired = [line for pair in compare_with_first(tables) for line in ("", *pair.lines())]
    atomic_write_bytes(comparison.table, (format_comparison(rows) + "".join(f"{line}\n" for line in paired)).encode())
    curves = [
        ModelScores(
            name=row.model,
            pass_at_k=[(point.k, point.value) for point in outcome.statistics.pass_at_k],
            mean_error=row.mean_error,
            mean_least_error=row.mean_least_error,
            guess_baseline=row.guess_baseline,
        )
        for row, outcome in zip(rows, outcomes, strict=True)
    ]
    atomic_write_bytes(comparison.plot, draw_comparison(curves, title="Rejection sampling: checkpoints compared"))
    return comparison
