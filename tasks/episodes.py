"""The end of a collection of episodes, and what it shows."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from rollmill.episodes.outcome import CollectionOutcome, write_collection
from rollmill.episodes.parameters import CollectEpisodes
from rollmill.rollouts.progress import Progress
from rollmill.rollouts.run import Run
from tasks.outcomes import failing_in_one_line
from tasks.watching import show_picture, show_table, show_text


@task(name="write training rows", cache_policy=NO_CACHE)
@failing_in_one_line
def write_training_rows(run: Run, parameters: CollectEpisodes, progress: Progress) -> CollectionOutcome:
    """Writes the training rows and their statistics from the journal, and shows them."""
    outcome = write_collection(run, parameters, progress)
    name = outcome.directory.name
    show_table("collect-episodes", outcome.table, f"Episodes: {name}")
    show_text("collect-episodes-statistics", outcome.statistics.read_text(), f"Statistics of {name}")
    show_picture("collect-episodes-overview", outcome.files["picture"], f"Overview of {name}")
    for note in outcome.notes:
        get_run_logger().warning(note)
    return outcome
