"""What a collection leaves: the training rows, honest counts of them, a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rollmill.corpus.corpus import index_run
from rollmill.files.atomic import atomic_write, atomic_write_bytes, atomic_write_json
from rollmill.files.rows import dump_line
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run, problem_files
from rollmill.jobs.curation.overview_plot import draw_overview
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.selection import Selection, selected
from rollmill.jobs.episodes.statistics import EpisodeStatistics

PLOT = "overview.png"


class CollectionOutcome(BaseModel):
    """A run when it is over: numbers, and the paths of what was written."""

    model_config = ConfigDict(frozen=True)

    directory: Path
    data: Path
    """`sft_data_<time>.jsonl`, `time` being that of the run's first start."""
    statistics: Path
    made: int
    """Episodes of this call; the others were journaled before."""
    episodes: int
    successes: int
    failed: int
    """Failed on the way: neither a success nor none."""
    rows: int
    table: list[dict[str, str]]
    notes: list[str]
    adapter: Path | None = None
    """Where it was trained."""

    @property
    def files(self) -> dict[str, Path]:
        """What was written, by what it is."""
        found = {
            "training rows": self.data,
            "statistics": self.statistics,
            "picture": self.directory / PLOT,
            "journal": self.directory / "rollouts",
            **problem_files(self.directory),
        }
        if self.adapter is not None:
            found["adapter"] = self.adapter
        return found

    def lines(self) -> list[str]:
        """What a user should read."""
        done = [] if self.made else ["already complete, nothing was played"]
        return [
            f"{self.episodes:,} episodes: {self.successes:,} successful, {self.failed:,} failed on the way; "
            f"{self.rows:,} training rows",
            *done,
            *self.notes,
            *(f"{what}: {path}" for what, path in self.files.items()),
        ]


def write_collection(run: Run, parameters: CollectEpisodes, progress: Progress) -> CollectionOutcome:
    """Writes the rows from the journal, in the order of the problems, and what describes them; also with no row."""
    stamp = re.sub(r"[^0-9]", "", run.manifest.started_at)[:14]
    name = f"sft_data_{stamp[:8]}_{stamp[8:]}"
    data, counts = run.directory / f"{name}.jsonl", run.directory / f"{name}_stats.json"
    statistics = write_rows(run, selection_of(parameters), data, parameters.env_name)
    atomic_write_json(counts, statistics.to_json())
    table = index_run(run.directory, run.num_rollout).table
    atomic_write_bytes(run.directory / PLOT, draw_overview(table, parameters.directory.name))
    outcome = CollectionOutcome(
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
    )
    run.finish(outcome.model_dump(mode="json", include={"episodes", "successes", "failed", "rows"}))
    return outcome


def selection_of(parameters: CollectEpisodes) -> Selection:
    """What the parameters keep."""
    return Selection(
        only_success=parameters.only_success,
        agents=tuple(parameters.keep_agents),
        balance_success=parameters.balance_success,
        seed=parameters.seed,
    )


def write_rows(run: Run, selection: Selection, path: Path, env_name: str) -> EpisodeStatistics:
    """Writes the selected turns as JSON Lines, whole or not at all; what was counted on the way."""
    chosen: dict[str, Any] = selection.model_dump(mode="json")
    statistics = EpisodeStatistics(env_name=env_name, wanted=run.expected, data_file=path.name, selection=chosen)
    with atomic_write(path) as file:
        for episode, rows in selected(run, selection):
            statistics.add_episode(episode)
            for row in rows:
                statistics.add_row(row)
                if row.left_out is None:
                    file.write(dump_line(row.to_json()))
    return statistics
