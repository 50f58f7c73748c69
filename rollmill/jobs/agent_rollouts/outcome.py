"""What a run of agents leaves: the document of all attempts, its analysis, its picture."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from rollmill.corpus.corpus import index_run
from rollmill.exports.seed_format import summary, write_seed_format
from rollmill.files.atomic import atomic_write_bytes
from rollmill.generation.progress import Progress
from rollmill.generation.run import PROBLEMS, Run, problem_files
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.curation.analysis_text import analysis_rows, analysis_text
from rollmill.jobs.curation.overview_plot import draw_overview
from rollmill.jobs.curation.reading import analyse_corpus
from rollmill.problems.loading import read_instance_ids

STATISTICS = "statistics.txt"
PLOT = "overview.png"


class AgentOutcome(BaseModel):
    """A run when it is over: numbers, and the paths of what was written."""

    model_config = ConfigDict(frozen=True)

    output: Path
    directory: Path
    attempts: int
    made: int
    """Attempts of this call; the others were journaled before."""
    successful: int
    failed: int
    """Failed on the way: without a reward."""
    rows: list[dict[str, str]]
    """The analysis as a table."""
    notes: list[str]

    @property
    def files(self) -> dict[str, Path]:
        """What was written, by what it is."""
        return {
            "document": self.output,
            "statistics": self.directory / STATISTICS,
            "picture": self.directory / PLOT,
            "journal": self.directory / "rollouts",
            **problem_files(self.directory),
        }

    def lines(self) -> list[str]:
        """What a user should read."""
        done = [] if self.made else ["already complete, nothing was generated"]
        return [
            f"{self.attempts:,} attempts: {self.successful:,} successful, {self.failed:,} failed on the way",
            *done,
            *self.notes,
            *(f"{what}: {path}" for what, path in self.files.items()),
        ]


def write_outcome(run: Run, parameters: AgentRollouts, progress: Progress) -> AgentOutcome:
    """Writes the document from the journal, in the order of the problems, and what describes it."""
    corpus = index_run(run.directory, run.num_rollout)
    table = in_order(corpus.table, read_instance_ids(run.directory / PROBLEMS))
    write_seed_format(
        Path(parameters.output), document_metadata(run, parameters), corpus.records(table), summary(table)
    )
    analysis = analyse_corpus(corpus, None)
    name = Path(parameters.output).stem
    atomic_write_bytes(run.directory / STATISTICS, (analysis_text(analysis, name) + "\n").encode())
    atomic_write_bytes(run.directory / PLOT, draw_overview(corpus.table, name))
    outcome = AgentOutcome(
        output=Path(parameters.output),
        directory=run.directory,
        attempts=table.height,
        made=progress.tally.done,
        successful=int(table["success"].sum() or 0),
        failed=int(table["success"].is_null().sum()),
        rows=analysis_rows(analysis),
        notes=analysis.notes,
    )
    run.finish(outcome.model_dump(mode="json", include={"attempts", "successful", "failed"}))
    return outcome


def in_order(table: pl.DataFrame, instance_ids: list[str]) -> pl.DataFrame:
    """The rows by problem, in the order of the data set, and then by sample."""
    places = pl.DataFrame({"instance_id": instance_ids, "place": range(len(instance_ids))})
    placed = table.join(places, on="instance_id", how="left", maintain_order="left")
    return placed.sort("place", "sample_id", maintain_order=True).drop("place")


def document_metadata(run: Run, parameters: AgentRollouts) -> dict[str, object]:
    """The document's `metadata`, by the names that its readers know."""
    return {
        "model_name": parameters.model,
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "max_tokens": parameters.max_tokens,
        "config_file": parameters.config,
        "dataset_file": parameters.dataset,
        "workers": parameters.workers,
        "samples_per_task": run.num_rollout,
        "total_tasks": run.problem_count,
        "total_samples": run.expected,
        "seed": parameters.seed,
        "identity_key": run.manifest.identity_key,
    }
