"""The end of a rejection sampling run, and of several."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from rollmill.rejection.checkpoint import Checkpoint, verifier_pool
from rollmill.rejection.comparing import write_comparison
from rollmill.rejection.outcome import RunOutcome, write_outcome
from rollmill.rejection.parameters import RejectSampling
from rollmill.rollouts.progress import Progress
from rollmill.rollouts.reverify import reverify
from rollmill.rollouts.run import Run
from tasks.outcomes import failing_in_one_line
from tasks.watching import artifact_key, show_picture, show_table, show_text


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
    for warning in outcome.warnings:
        get_run_logger().warning(warning)
    return outcome


@task(name="compare", cache_policy=NO_CACHE)
@failing_in_one_line
def compare_runs(parameters: RejectSampling, outcomes: Sequence[RunOutcome]) -> None:
    """Writes and shows the comparison of several checkpoints."""
    comparison = write_comparison(parameters, outcomes)
    show_table("reject-sampling-comparison", comparison.cells, "Checkpoints compared")
    show_picture("reject-sampling-comparison-plot", comparison.plot, "Checkpoints compared")
