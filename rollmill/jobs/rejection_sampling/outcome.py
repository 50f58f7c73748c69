"""What one run leaves in its directory: results, statistics, plot, training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rollmill.corpus.corpus import index_run
from rollmill.exports.card import README
from rollmill.files.atomic import atomic_write_bytes
from rollmill.generation.progress import Progress
from rollmill.generation.run import QUARANTINE, Run, problem_files
from rollmill.jobs.curation.export_job import ExportOutcome, export_corpus
from rollmill.jobs.curation.exporters import sft_exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import Sft
from rollmill.jobs.rejection_sampling.advice import advice
from rollmill.jobs.rejection_sampling.checkpoint import Checkpoint
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.jobs.rejection_sampling.report import format_statistics, number, share
from rollmill.jobs.rejection_sampling.results import write_results
from rollmill.jobs.rejection_sampling.statistics import Statistics
from rollmill.reports.plots.error_distribution import draw_error_distribution

RESULTS = "reject_sampling_results.json"
STATISTICS = "statistics.txt"
PLOT = "error_distribution.png"
SFT = "sft.jsonl"

ACCEPTED = Filters(
    drop_errors=["any"], drop_unparseable=True, successful_only=True, drop_empty=True, drop_duplicates=True
)
"""Which rollouts are training data: of equal completions to one problem, the first."""


class RunOutcome(BaseModel):
    """One run when it is over: numbers, and the paths of what was written."""

    model_config = ConfigDict(frozen=True)

    name: str
    directory: Path
    statistics: Statistics
    kept: int
    """Rollouts in the training data."""
    warnings: list[str]
    made: int
    """Rollouts of this call; the others were journaled before."""
    tokens_per_s: float | None
    """Completion tokens of this call by its time on the server; None when it made none."""

    @property
    def files(self) -> dict[str, Path]:
        """What was written, by what it is."""
        return {
            "results": self.directory / RESULTS,
            "statistics": self.directory / STATISTICS,
            "plot": self.directory / PLOT,
            "training data": self.directory / SFT,
            "card": self.directory / README,
            "journal": self.directory / "rollouts",
            **problem_files(self.directory),
        }

    def row(self) -> dict[str, str]:
        """The run as one row of a table."""
        one = self.statistics
        return {
            "run": self.name,
            "problems": f"{one.problems:,}",
            "rollouts": f"{one.coverage.expected - one.coverage.missing:,}",
            "success": share(one.accepted_of_judged),
            "error": number(one.error.mean if one.error else None),
            "least error": number(one.least_error.mean if one.least_error else None),
            "failed": f"{one.coverage.failed:,}",
            "tokens/s": "-" if self.tokens_per_s is None else f"{self.tokens_per_s:,.0f}",
            "kept": f"{self.kept:,}",
        }


def write_outcome(
    run: Run, parameters: RejectSampling, checkpoint: Checkpoint, *, progress: Progress | None = None
) -> RunOutcome:
    """Writes everything that the seed's users find in `<output_dir>/<model_name>/`, from the journal.

    Coverage is checked before anything is exported; see `rollmill.jobs.rejection_sampling.coverage`.
    """
    numeric = parameters.verifier == "numeric"
    metadata: dict[str, Any] = {
        "model_name": checkpoint.name,
        "model_path": checkpoint.path,
        "identity": run.manifest.identity_key,
        "problems": run.manifest.problems,
        "num_rollout": run.num_rollout,
        **parameters.sampling.model_dump(),
        **run.manifest.identity.verification,
    }
    results = write_results(
        run.directory / RESULTS,
        run.groups(),
        metadata=metadata,
        problems=run.problem_count,
        num_rollout=run.num_rollout,
        accept_error=parameters.accept_error,
        numeric=numeric,
    )
    statistics = results.statistics
    warnings = advice(statistics, temperature=parameters.temperature)
    quarantined = int(run.manifest.problems["quarantined"])
    if quarantined:
        warnings.append(f"{quarantined} rows of the data set could not be used: see {run.directory / QUARANTINE}")
    text = format_statistics(statistics, title=f"Rejection sampling: {checkpoint.name}", warnings=warnings)
    atomic_write_bytes(run.directory / STATISTICS, text.encode())
    plot = draw_error_distribution(
        results.least_errors,
        results.errors,
        title=f"Rejection sampling: {checkpoint.name}",
        problems=statistics.problems,
        rollouts=statistics.coverage.judged,
        num_rollout=run.num_rollout,
        parse_rate=statistics.parse_rate,
        guess_baseline=statistics.guess_baseline.mean_least_error,
        accept_error=parameters.accept_error,
    )
    atomic_write_bytes(run.directory / PLOT, plot)
    kept = export_accepted(run, checkpoint.name).kept
    outcome = RunOutcome(
        name=checkpoint.name,
        directory=run.directory,
        statistics=statistics,
        kept=kept,
        warnings=warnings,
        made=progress.tally.done if progress else 0,
        tokens_per_s=progress.tokens_per_s if progress else None,
    )
    run.finish({"coverage": statistics.coverage.model_dump(), "accepted": statistics.accepted, "kept": kept})
    return outcome


def export_accepted(run: Run, model: str) -> ExportOutcome:
    """Leaves the index of the run's journal, for whoever reads the run again, and writes the training data."""
    corpus = index_run(run.directory, run.num_rollout)
    exporter, filters = sft_exporter(run.directory / SFT, Sft(), ACCEPTED)
    return export_corpus(corpus, filters, exporter, origin={"model": model, "identity": run.manifest.identity_key})
