"""A call whose run is complete: its results are written anew, and nothing is generated."""

from __future__ import annotations

from rollmill.generation.progress import progress_of
from rollmill.jobs.episodes.outcome import CollectionOutcome, write_collection
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.run import hold, open_collection


def finished_outcome(parameters: CollectEpisodes) -> CollectionOutcome | None:
    """Write the results of a call anew; None where something is missing.

    Raises as opening the run does.
    """
    with hold(parameters), open_collection(parameters) as run:
        progress = progress_of(run)
        return None if progress.left else write_collection(run, parameters, progress)
