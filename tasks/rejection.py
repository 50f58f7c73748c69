"""A rejection sampling run on many machines, its end, and that of several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from blocks.inference import endpoint_config, server_config
from rollmill.rejection.asking import ChatOrder, chat_order, chat_session
from rollmill.rejection.checkpoint import Checkpoint, verifier_pool
from rollmill.rejection.comparing import Comparison, write_comparison
from rollmill.rejection.outcome import RunOutcome, write_outcome
from rollmill.rejection.parameters import RejectSampling
from rollmill.rollouts.kept_session import IsGivenUp
from rollmill.rollouts.progress import Progress
from rollmill.rollouts.reverify import reverify
from rollmill.rollouts.run import Run
from rollmill.rollouts.session import RolloutSession
from rollmill.rollouts.shard import Part
from tasks.outcomes import failing_in_one_line
from tasks.sharding import ShardedRollouts, sharded
from tasks.watching import artifact_key, show_files, show_picture, show_table, show_text


def opened_chat(order: ChatOrder, part: Part, is_given_up: IsGivenUp) -> AbstractContextManager[RolloutSession[Part]]:
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
@failing_in_one_line
def score_again(run: Run, parameters: RejectSampling) -> None:
    """Scores the completions on disk with the verifier of the parameters."""
    count = reverify(run, verifier_pool(parameters))
    get_run_logger().info("%d completions scored again, now in %s", count, run.manifest.journal)


@task(name="write results", cache_policy=NO_CACHE)
@failing_in_one_line
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
@failing_in_one_line
def compare_runs(parameters: RejectSampling, outcomes: Sequence[RunOutcome]) -> Comparison:
    """Writes and shows the comparison of several checkpoints."""
    comparison = write_comparison(parameters, outcomes)
    show_table("reject-sampling-comparison", comparison.cells, "Checkpoints compared")
    show_picture("reject-sampling-comparison-plot", comparison.plot, "Checkpoints compared")
    return comparison
