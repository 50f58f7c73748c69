"""A call whose run is complete: its results are written anew, and nothing is generated."""

from __future__ import annotations

from rollmill.episodes.outcome import CollectionOutcome, write_collection
from rollmill.episodes.parameters import CollectEpisodes
from rollmill.episodes.run import hold, open_collection
from rollmill.rollouts.progress import progress_of


def finished_outcome(parameters: CollectEpisodes) -> CollectionOutcome | None:
    """Write the results of a call anew; None, with nothing written, where something is missing.

    Raises as opening the run does.
    """
    with hold(parameters), open_collection(parameters) as run:
        progress = progress_of(run)
        return None if progress.left else write_collection(run, parameters, progress)
