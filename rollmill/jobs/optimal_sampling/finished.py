"""A call whose run is complete: its results are written anew, and nothing is generated."""

from __future__ import annotations

from rollmill.jobs.optimal_sampling.outcome import SamplingOutcome, write_samples
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.optimal_sampling.progress import sampling_progress
from rollmill.jobs.optimal_sampling.run import hold, open_sampling


def finished_outcome(parameters: OptimalSampling) -> SamplingOutcome | None:
    """Write the results of a call anew; None where something is missing.

    Raises as opening the run does.
    """
    with hold(parameters), open_sampling(parameters) as run:
        progress = sampling_progress(run, parameters)
        return None if progress.left else write_samples(run, parameters, progress)
