"""Writes the results of a collection: training rows, statistics, a plot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from rollmill.corpus.corpus import index_run
from rollmill.exports.token_references import relocate
from rollmill.files.atomic import atomic_write, atomic_write_bytes, atomic_write_json
from rollmill.files.rows import dump_line
from rollmill.generation.failures import count_failures
from rollmill.generation.outcome import JobOutcome
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run, problem_files
from rollmill.jobs.curation.overview_plot import draw_overview
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.selection import Selection, select_turns
from rollmill.jobs.episodes.statistics import EpisodeStatistics
from rollmill.reports.health import check_health

PLOT = "overview.png"
_MOST_WORDS = 10


class CollectionOutcome(JobOutcome):
    """Results of a finished collection."""

    title: ClassVar[str] = "Episodes"
    artifact_key: ClassVar[str] = "collect-episodes"

    data: Path
    """`sft_data_<time>.jsonl`, `time` being that of the run's first start."""
    statistics: Path
    episodes: int
    successes: int
    failed: int
    """Episodes that ended with an error: neither successful nor unsuccessful."""
    rows: int
    adapter: Path | None = None
    """The trained adapter; None without a training."""

    @property
    def files(self) -> dict[str, Path]:
        """The files that were written, by their content."""
        files = {
            "training rows": self.data,
            "statistics": self.statistics,
            "picture": self.directory / PLOT,
            "journal": self.directory / "rollouts",
            **problem_files(self.directory),
        }
        if self.adapter is not None:
            files["adapter"] = self.adapter
        return files

    def headline(self) -> str:
        """Return the run's numbers in one line."""
        return (
            f"{self.episodes:,} episodes: {self.successes:,} successful, {self.failed:,} failed on the way; "
            f"{self.rows:,} training rows"
        )


def write_collection(run: Run, parameters: CollectEpisodes, progress: Progress) -> CollectionOutcome:
    """Write the rows of the journal, in the order of problems, with statistics and a plot; also without any row."""
    stamp = re.sub(r"[^0-9]", "", run.manifest.started_at)[:14]
    name = f"sft_data_{stamp[:8]}_{stamp[8:]}"
    data, counts = run.directory / f"{name}.jsonl", run.directory / f"{name}_stats.json"
    statistics = write_rows(run, selection_of(parameters), data, parameters.env_name)
    corpus = index_run(run.directory, run.num_rollout)
    health = check_health(corpus)
    atomic_write_json(counts, {**statistics.to_json(), "health": health.model_dump(mode="json")})
    atomic_write_bytes(run.directory / PLOT, draw_overview(corpus.table, parameters.directory.name))
    outcome = CollectionOutcome(
        name=parameters.directory.name,
        directory=run.directory,
        data=data,
        statistics=counts,
        made=progress.tally.done,
        episodes=statistics.episodes,
        successes=statistics.successes,
        failed=statistics.failed,
        rows=statistics.rows,
        table=statistics.table(),
        notes=statistics.notes(),
        health=health.lines(),
    )
    run.finish(outcome.model_dump(mode="json", include={"episodes", "successes", "failed", "rows"}))
    return outcome


def selection_of(parameters: CollectEpisodes) -> Selection:
    """Return the rules of the parameters for the turns to keep."""
    return Selection(
        only_success=parameters.successful_only,
        agents=tuple(parameters.keep_agents),
        balance_success=parameters.balance_success,
        seed=parameters.seed,
        keep_truncated=parameters.keep_truncated,
    )


def write_rows(run: Run, selection: Selection, path: Path, env_name: str) -> EpisodeStatistics:
    """Write the selected turns as JSON Lines, atomically; return their statistics.

    Args:
        run: The run.
        selection: Rules for the turns to keep.
        path: The file.
        env_name: The environment's name, for the statistics.
    """
    rules: dict[str, Any] = selection.model_dump(mode="json")
    statistics = EpisodeStatistics(
        env_name=env_name,
        wanted=run.expected,
        data_file=path.name,
        selection=rules,
        failed_words=count_failures(run)[:_MOST_WORDS],
    )
    with atomic_write(path) as file:
        for episode, rows in select_turns(run, selection):
            statistics.add_episode(episode)
            location = episode.rollout.tokens
            tokens = relocate(location, run.journal.path.parent, path.parent) if location else None
            for row in rows:
                statistics.add_row(row)
                if row.left_out is None:
                    file.write(dump_line(row.to_json(tokens)))
    return statistics
