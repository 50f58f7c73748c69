"""A call whose run is complete: its results are written anew, and nothing is generated."""

from __future__ import annotations

from rollmill.generation.progress import progress_of
from rollmill.jobs.agent_rollouts.outcome import AgentOutcome, write_outcome
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.agent_rollouts.run import hold, open_agent_run


def finished_outcome(parameters: AgentRollouts) -> AgentOutcome | None:
    """Write the results of a call anew; None where something is missing.

    Raises as opening the run does.
    """
    with hold(parameters), open_agent_run(parameters) as run:
        progress = progress_of(run)
        return None if progress.left else write_outcome(run, parameters, progress)
