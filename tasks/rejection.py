"""Compares the runs of a rejection sampling call with several models."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from rollmill.jobs.rejection_sampling.comparison_files import ComparisonFiles, write_comparison
from rollmill.jobs.rejection_sampling.outcome import RunOutcome
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from tasks.artifacts import show_picture, show_table
from tasks.errors import report_failure


@task(name="compare", cache_policy=NO_CACHE)
@report_failure
def compare_runs(parameters: RejectSampling, outcomes: Sequence[RunOutcome]) -> ComparisonFiles:
    """Write and show the comparison of several checkpoints."""
    comparison = write_comparison(parameters, outcomes)
    show_table("reject-sampling-comparison", comparison.cells, "Checkpoints compared")
    show_picture("reject-sampling-comparison-plot", comparison.plot, "Checkpoints compared")
    return comparison
