"""A collection of episodes on many machines, its end, and what it shows."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.inference import endpoint_config, server_config
from blocks.sandboxes import sandbox_service
from blocks.search import search_service
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.generation.shard import ShardRun
from rollmill.generation.worker_session import IsGivenUp
from rollmill.jobs.episodes.episode_session import EpisodesOrder, episodes_order, episodes_session
from rollmill.jobs.episodes.outcome import CollectionOutcome, write_collection
from rollmill.jobs.episodes.parameters import CollectEpisodes
from tasks.artifacts import show_outcome
from tasks.errors import report_failure
from tasks.sharding import ShardedRollouts, sharded


def opened_episodes(
    order: EpisodesOrder, part: ShardRun, is_given_up: IsGivenUp
) -> AbstractContextManager[RolloutSession[ShardRun]]:
    """The session of a worker, which reads the blocks there."""
    parameters = order.parameters
    return episodes_session(
        order,
        part,
        is_given_up,
        server=server_config(parameters.server_block),
        endpoint=endpoint_config(parameters.endpoint_block),
        sandboxes=sandbox_service(parameters.sandbox_block),
        search=search_service(parameters.search_block),
    )


def sharded_episodes(
    run: Run, parameters: CollectEpisodes, progress: Progress
) -> AbstractContextManager[ShardedRollouts]:
    """What plays the run's episodes on workers. Raises as `episodes_order` does."""
    order, name = episodes_order(parameters), parameters.directory.name
    return sharded(run, progress, parameters, name, opening=opened_episodes, order=order, slots=parameters.concurrency)


@task(name="write training rows", cache_policy=NO_CACHE)
@report_failure
def write_training_rows(run: Run, parameters: CollectEpisodes, progress: Progress) -> CollectionOutcome:
    """Writes the training rows and their statistics from the journal, and shows them."""
    outcome = write_collection(run, parameters, progress)
    show_outcome("collect-episodes", "Episodes", outcome.directory.name, outcome.table, outcome.files, outcome.notes)
    return outcome
