"""A call whose runs are all complete: its results are written anew, and nothing is generated."""

from __future__ import annotations

from contextlib import ExitStack

from rollmill.generation.progress import progress_of
from rollmill.jobs.rejection_sampling.checkpoint import checkpoints, hold, open_checkpoint_run
from rollmill.jobs.rejection_sampling.comparison_files import write_comparison
from rollmill.jobs.rejection_sampling.outcome import RunOutcome, write_outcome
from rollmill.jobs.rejection_sampling.parameters import RejectSampling


def finished_outcomes(parameters: RejectSampling) -> list[RunOutcome] | None:
    """Write the results of a call anew; None where a rollout is missing.

    Raises as opening the runs does.
    """
    with ExitStack() as stack:
        opened = []
        for checkpoint in checkpoints(parameters):
            stack.enter_context(hold(checkpoint))
            run = stack.enter_context(open_checkpoint_run(parameters, checkpoint))
            opened.append((run, checkpoint, progress_of(run)))
        if any(progress.left for _, _, progress in opened):
            return None
        outcomes = [
            write_outcome(run, parameters, checkpoint, progress=progress) for run, checkpoint, progress in opened
        ]
        if len(outcomes) > 1:
            write_comparison(parameters, outcomes)
    return outcomes
