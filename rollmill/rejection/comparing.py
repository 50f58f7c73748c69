"""Several runs of one call, compared in files beside their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rollmill.files.whole import write_bytes_whole
from rollmill.plots.comparison import Curve, draw_comparison
from rollmill.rejection.comparison import compare, comparison_cells, format_comparison
from rollmill.rejection.outcome import RunOutcome
from rollmill.rejection.parameters import RejectSampling


class Comparison(NamedTuple):
    """What was written, and the table's cells."""

    table: Path
    plot: Path
    cells: list[dict[str, str]]

    @property
    def directory(self) -> Path:
        """The output directory, which the runs' are in."""
        return self.table.parent

    @property
    def files(self) -> dict[str, Path]:
        """What was written, by what it is."""
        return {"comparison": self.table, "plot": self.plot}


def write_comparison(parameters: RejectSampling, outcomes: Sequence[RunOutcome]) -> Comparison:
    """Writes `comparison.txt` and `comparison.png` into the output directory."""
    rows = compare((outcome.name, outcome.statistics) for outcome in outcomes)
    folder = Path(parameters.output_dir)
    comparison = Comparison(folder / "comparison.txt", folder / "comparison.png", comparison_cells(rows))
    write_bytes_whole(comparison.table, format_comparison(rows).encode())
    curves = [
        Curve(
            name=row.model,
            pass_at_k=[(rung.k, rung.value) for rung in outcome.statistics.pass_at_k],
            mean_error=row.mean_error,
            mean_least_error=row.mean_least_error,
            guess_baseline=row.guess_baseline,
        )
        for row, outcome in zip(rows, outcomes, strict=True)
    ]
    write_bytes_whole(comparison.plot, draw_comparison(curves, title="Rejection sampling: checkpoints compared"))
    return comparison
