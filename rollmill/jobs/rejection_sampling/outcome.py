"""Writes the results of one run into its directory: results, statistics, plots, training data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from rollmill.corpus.corpus import Corpus, index_run
from rollmill.exports.card import README
from rollmill.files.atomic import atomic_write_bytes
from rollmill.generation.failures import count_failures
from rollmill.generation.outcome import ArtifactKeys, JobOutcome
from rollmill.generation.progress import Progress
from rollmill.generation.run import QUARANTINE, Run, problem_files
from rollmill.generation.sampling import Sampling
from rollmill.inference.backend import ServedModel
from rollmill.jobs.curation.export_job import ExportOutcome, export_corpus
from rollmill.jobs.curation.exporters import sft_exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import Sft
from rollmill.jobs.rejection_sampling.advice import advice
from rollmill.jobs.rejection_sampling.agreement import JudgeAgreement, measure_agreement
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.jobs.rejection_sampling.report import format_statistics, number, share
from rollmill.jobs.rejection_sampling.results import Results, write_results
from rollmill.jobs.rejection_sampling.statistics import Statistics
from rollmill.reports.attempts import LogprobReader
from rollmill.reports.health import check_health
from rollmill.reports.plots.error_distribution import draw_error_distribution
from rollmill.reports.plots.sampling_curves import draw_sampling_curves
from rollmill.verifiers import open_verifiers

RESULTS = "reject_sampling_results.json"
STATISTICS = "statistics.txt"
PLOT = "error_distribution.png"
CURVES = "sampling_curves.png"
SFT = "sft.jsonl"

ACCEPTED = Filters(
    drop_errors=["any"], drop_unparseable=True, successful_only=True, drop_empty=True, drop_duplicates=True
)
"""Filters for the rollouts that become training data; of equal completions of a problem, the first is kept."""


class RunOutcome(JobOutcome):
    """Results of one model's finished run."""

    title: ClassVar[str] = "Rejection sampling"
    artifact_key: ClassVar[str] = "reject-sampling"

    statistics: Statistics
    kept: int
    """Number of rollouts in the training data."""
    tokens_per_s: float | None
    """Completion tokens of this call per second; None where it generated none."""

    @property
    def files(self) -> dict[str, Path]:
        """The files that were written, by their content."""
        return {
            "results": self.directory / RESULTS,
            "statistics": self.directory / STATISTICS,
            "plot": self.directory / PLOT,
            "curves": self.directory / CURVES,
            "training data": self.directory / SFT,
            "card": self.directory / README,
            "journal": self.directory / "rollouts",
            **problem_files(self.directory),
        }

    @property
    def picture(self) -> Path:
        """The plot of the errors' distribution."""
        return self.files["plot"]

    def artifact_keys(self) -> ArtifactKeys:
        """Return the keys of the run's artifacts, which have its name: a call may have several runs."""
        run = re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-") or "run"
        key = f"{self.artifact_key}-{run}"
        return ArtifactKeys(f"{key}-summary", f"{key}-statistics", f"{key}-errors", f"{key}-files")

    def headline(self) -> str:
        """Return the run's numbers in one line."""
        return ", ".join(f"{title} {cell}" for title, cell in self.table[0].items())


def _row(name: str, statistics: Statistics, kept: int, tokens_per_s: float | None) -> dict[str, str]:
    """Return the run as one row of a table.

    Args:
        name: Name of the run.
        statistics: Statistics of the run.
        kept: Number of rollouts in the training data.
        tokens_per_s: Completion tokens per second; None where nothing was generated.
    """
    return {
        "run": name,
        "problems": f"{statistics.problems:,}",
        "rollouts": f"{statistics.coverage.expected - statistics.coverage.missing:,}",
        "success": share(statistics.accepted_of_judged),
        "error": number(statistics.error.mean if statistics.error else None),
        "least error": number(statistics.least_error.mean if statistics.least_error else None),
        "failed": f"{statistics.coverage.failed:,}",
        "tokens/s": "-" if tokens_per_s is None else f"{tokens_per_s:,.0f}",
        "kept": f"{kept:,}",
    }


def write_outcome(
    run: Run, parameters: RejectSampling, model: ServedModel, sampling: Sampling, *, progress: Progress
) -> RunOutcome:
    """Write all results of `<output_dir>/<model_name>/` from the journal.

    Coverage is checked before anything is exported; see `rollmill.jobs.rejection_sampling.coverage`.

    Args:
        run: The run.
        parameters: The call's parameters.
        model: The model of the run.
        sampling: Its sampling parameters.
        progress: Counts of the rollouts that this call generated.
    """
    numeric = parameters.verifier == "numeric"
    metadata: dict[str, Any] = {
        "model_name": model.name,
        "model_path": model.path,
        "identity": run.manifest.identity_key,
        "problems": run.manifest.problems,
        "num_rollout": run.num_rollout,
        **sampling.model_dump(),
        **run.manifest.identity.verification,
    }
    with LogprobReader(run.journal.path.parent) as logprobs:
        results = write_results(
            run.directory / RESULTS,
            run.groups(),
            metadata=metadata,
            problems=run.problem_count,
            num_rollout=run.num_rollout,
            accept_error=parameters.accept_error,
            numeric=numeric,
            failed_words=count_failures(run),
            logprobs=logprobs,
        )
    statistics = results.statistics
    warnings = advice(statistics, temperature=sampling.temperature)
    quarantined = int(run.manifest.problems["quarantined"])
    if quarantined:
        warnings.append(f"{quarantined} rows of the data set could not be used: see {run.directory / QUARANTINE}")
    agreement = _measure_agreement(run, parameters)
    if agreement:
        warnings.append(agreement.line())
    corpus = index_run(run.directory, run.num_rollout)
    health = check_health(corpus).lines()
    title = f"Rejection sampling: {model.name}"
    text = format_statistics(statistics, title=title, warnings=warnings, health=health)
    atomic_write_bytes(run.directory / STATISTICS, text.encode())
    _draw_plots(run, results, title=title, accept_error=parameters.accept_error)
    kept = export_accepted(run, model.name, corpus).kept
    outcome = RunOutcome(
        name=model.name,
        directory=run.directory,
        made=progress.tally.done,
        table=[_row(model.name, statistics, kept, progress.tokens_per_s)],
        notes=warnings,
        health=health,
        statistics=statistics,
        kept=kept,
        tokens_per_s=progress.tokens_per_s,
    )
    totals = {"coverage": statistics.coverage.model_dump(), "accepted": statistics.accepted, "kept": kept}
    run.finish(totals | ({"judge_agreement": agreement.model_dump()} if agreement else {}))
    return outcome


def _measure_agreement(run: Run, parameters: RejectSampling) -> JudgeAgreement | None:
    """Return how often a second verifier agrees with the run's; None unless the call names one."""
    if not parameters.judge_agreement:
        return None
    second = open_verifiers(parameters.judge_agreement, accept_error=parameters.accept_error)
    return measure_agreement(run, second, parameters.judge_agreement)


def _draw_plots(run: Run, results: Results, *, title: str, accept_error: float) -> None:
    """Draw the error distribution and the sampling curves into the run directory.

    Args:
        run: The run.
        results: Its results.
        title: Title of both plots.
        accept_error: Largest error that is accepted, which the distribution marks.
    """
    statistics = results.statistics
    distribution = draw_error_distribution(
        results.least_errors,
        results.errors,
        title=title,
        problems=statistics.problems,
        rollouts=statistics.coverage.judged,
        num_rollout=run.num_rollout,
        parse_rate=statistics.parse_rate,
        guess_baseline=statistics.guess_baseline.mean_least_error,
        accept_error=accept_error,
    )
    atomic_write_bytes(run.directory / PLOT, distribution)
    atomic_write_bytes(run.directory / CURVES, draw_sampling_curves(statistics.curves, title=title))


def export_accepted(run: Run, model: str, corpus: Corpus) -> ExportOutcome:
    """Write the training data of a run; `corpus` has its rollouts."""
    exporter, filters = sft_exporter(run.directory / SFT, Sft(), ACCEPTED, allow_empty=True)
    return export_corpus(corpus, filters, exporter, origin={"model": model, "identity": run.manifest.identity_key})
