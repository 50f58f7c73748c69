"""A rejection sampling run on many machines, its end, and that of several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from blocks.inference import endpoint_config, server_config
from rollmill.generation.progress import Progress
from rollmill.generation.reverify import reverify
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.generation.shard import ShardRun
from rollmill.generation.worker_session import IsGivenUp
from rollmill.jobs.rejection_sampling.chat_session import ChatOrder, chat_order, chat_session
from rollmill.jobs.rejection_sampling.checkpoint import Checkpoint, verifier_pool
from rollmill.jobs.rejection_sampling.comparison_files import ComparisonFiles, write_comparison
from rollmill.jobs.rejection_sampling.outcome import RunOutcome, write_outcome
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from tasks.artifacts import artifact_key, show_files, show_picture, show_table, show_text
from tasks.errors import report_failure
from tasks.sharding import ShardedRollouts, sharded


def opened_chat(
    order: ChatOrder, part: ShardRun, is_given_up: IsGivenUp
) -> AbstractContextManager[RolloutSession[ShardRun]]:
    """The session of a worker, which reads the blocks there."""
    server = server_config(order.parameters.server_block)
    endpoint = endpoint_config(order.parameters.endpoint_block)
    return chat_session(order, part, is_given_up, server=server, endpoint=endpoint)


def sharded_rollouts(
    run: Run, parameters: RejectSampling, checkpoint: Checkpoint, progress: Progress
) -> AbstractContextManager[ShardedRollouts]:
    """What makes the run's rollouts on workers. Raises as `chat_order` does."""
    order = chat_order(parameters, checkpoint)
    return sharded(run, progress, parameters, checkpoint.name, opening=opened_chat, order=order, slots=parameters.slots)


@task(name="score again", cache_policy=NO_CACHE)
@report_failure
def score_again(run: Run, parameters: RejectSampling) -> None:
    """Scores the completions on disk with the verifier of the parameters."""
    count = reverify(run, verifier_pool(parameters))
    get_run_logger().info("%d completions scored again, now in %s", count, run.manifest.journal)


@task(name="write results", cache_policy=NO_CACHE)
@report_failure
def write_results(
    run: Run, parameters: RejectSampling, checkpoint: Checkpoint, progress: Progress | None = None
) -> RunOutcome:
    """Writes results, statistics, plot and training data from the journal, and shows them."""
    outcome = write_outcome(run, parameters, checkpoint, progress=progress)
    key = artifact_key(checkpoint.name)
    show_table(f"{key}-summary", [outcome.row()], f"Rejection sampling: {checkpoint.name}")
    show_text(f"{key}-statistics", outcome.files["statistics"].read_text(), f"Statistics of {checkpoint.name}")
    show_picture(f"{key}-errors", outcome.files["plot"], f"Error distribution of {checkpoint.name}")
    show_files(key, checkpoint.name, outcome.directory, outcome.files)
    for warning in outcome.warnings:
        get_run_logger().warning(warning)
    return outcome


@task(name="compare", cache_policy=NO_CACHE)
@report_failure
def compare_runs(parameters: RejectSampling, outcomes: Sequence[RunOutcome]) -> ComparisonFiles:
    """Writes and shows the comparison of several checkpoints."""
    comparison = write_comparison(parameters, outcomes)
    show_table("reject-sampling-comparison", comparison.cells, "Checkpoints compared")
    show_picture("reject-sampling-comparison-plot", comparison.plot, "Checkpoints compared")
    return comparison
