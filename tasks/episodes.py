"""The end of a collection of episodes, and what it shows."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from rollmill.episodes.outcome import CollectionOutcome, write_collection
from rollmill.episodes.parameters import CollectEpisodes
from rollmill.rollouts.progress import Progress
from rollmill.rollouts.run import Run
from tasks.outcomes import failing_in_one_line
from tasks.watching import show_outcome


@task(name="write training rows", cache_policy=NO_CACHE)
@failing_in_one_line
def write_training_rows(run: Run, parameters: CollectEpisodes, progress: Progress) -> CollectionOutcome:
    """Writes the training rows and their statistics from the journal, and shows them."""
    outcome = write_collection(run, parameters, progress)
    show_outcome("collect-episodes", "Episodes", outcome.directory.name, outcome.table, outcome.files, outcome.notes)
    return outcome
