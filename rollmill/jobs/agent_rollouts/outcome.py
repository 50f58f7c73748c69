"""Writes the results of agent rollouts: the document of all attempts, statistics, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import polars as pl

from rollmill.corpus.corpus import index_run
from rollmill.exports.seed_format import make_summary, write_seed_format
from rollmill.exports.token_references import with_moved_tokens
from rollmill.files.atomic import atomic_write_bytes
from rollmill.generation.failures import count_failures, failure_lines, failure_note
from rollmill.generation.outcome import JobOutcome
from rollmill.generation.progress import Progress
from rollmill.generation.run import PROBLEMS, Run, problem_files
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.curation.analysis_notes import failed_note
from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.jobs.curation.analysis_text import analysis_rows, analysis_text
from rollmill.jobs.curation.overview_plot import draw_overview
from rollmill.jobs.curation.reading import analyse_corpus
from rollmill.problems.loading import read_instance_ids
from rollmill.reports.health import check_health
from rollmill.statistics.failures import FailureWords
from rollmill.terminal.escapes import visible

STATISTICS = "statistics.txt"
PLOT = "overview.png"


class AgentOutcome(JobOutcome):
    """Results of a finished run."""

    title: ClassVar[str] = "Agent rollouts"
    artifact_key: ClassVar[str] = "agent-rollouts"

    output: Path
    attempts: int
    successful: int
    failed: int
    """Attempts that ended with an error, without a reward."""

    @property
    def files(self) -> dict[str, Path]:
        """The files that were written, by their content."""
        return {
            "document": self.output,
            "statistics": self.directory / STATISTICS,
            "picture": self.directory / PLOT,
            "journal": self.directory / "rollouts",
            **problem_files(self.directory),
        }

    def headline(self) -> str:
        """Return the run's numbers in one line."""
        return f"{self.attempts:,} attempts: {self.successful:,} successful, {self.failed:,} failed on the way"


def write_outcome(run: Run, parameters: AgentRollouts, progress: Progress) -> AgentOutcome:
    """Write the document of the journal's attempts, in the order of problems, with statistics and a plot."""
    corpus = index_run(run.directory, run.num_rollout)
    table = in_order(corpus.table, read_instance_ids(run.directory / PROBLEMS))
    output = Path(parameters.output)
    journals = run.journal.path.parent
    records = (with_moved_tokens(record, journals, output.parent) for record in corpus.records(table))
    write_seed_format(output, document_metadata(run, parameters), records, make_summary(table))
    analysis = analyse_corpus(corpus, None)
    name = Path(parameters.output).stem
    failures = count_failures(run)
    health = check_health(corpus).lines()
    lines = [
        analysis_text(analysis, name),
        *(f"failed: {line}" for line in failure_lines(failures)),
        "",
        *map(visible, health),
    ]
    atomic_write_bytes(run.directory / STATISTICS, ("\n".join(lines) + "\n").encode())
    atomic_write_bytes(run.directory / PLOT, draw_overview(corpus.table, name))
    outcome = AgentOutcome(
        name=name,
        output=Path(parameters.output),
        directory=run.directory,
        attempts=table.height,
        made=progress.tally.done,
        successful=int(table["success"].sum() or 0),
        failed=int(table["success"].is_null().sum()),
        table=analysis_rows(analysis),
        notes=outcome_notes(failures, analysis),
        health=health,
    )
    run.finish(outcome.model_dump(mode="json", include={"attempts", "successful", "failed"}))
    return outcome


def outcome_notes(failures: Sequence[FailureWords], analysis: Analysis) -> list[str]:
    """Return notes on what a user should look at; the note on failures has messages, not types as the analysis's."""
    note = failure_note(failures, analysis.rollouts, "attempts")
    return [*([note] if note else []), *(item for item in analysis.notes if item != failed_note(analysis))]


def in_order(table: pl.DataFrame, instance_ids: list[str]) -> pl.DataFrame:
    """Sort the rows by problem, in the order of the data set, and then by sample."""
    ranks = pl.DataFrame({"instance_id": instance_ids, "rank": range(len(instance_ids))})
    ranked = table.join(ranks, on="instance_id", how="left", maintain_order="left")
    return ranked.sort("rank", "sample_id", maintain_order=True).drop("rank")


def document_metadata(run: Run, parameters: AgentRollouts) -> dict[str, object]:
    """Return the document's `metadata`."""
    return {
        "model_name": parameters.model_path,
        **run.manifest.identity.generation["sampling"],
        "config_file": parameters.config,
        "dataset_file": parameters.dataset,
        "workers": parameters.concurrency,
        "samples_per_task": run.num_rollout,
        "total_tasks": run.problem_count,
        "total_samples": run.expected,
        "identity_key": run.manifest.identity_key,
    }
