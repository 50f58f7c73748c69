"""The end of a run of agents, and what it shows."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from rollmill.agent_rollouts.outcome import AgentOutcome, write_outcome
from rollmill.agent_rollouts.parameters import AgentRollouts
from rollmill.rollouts.progress import Progress
from rollmill.rollouts.run import Run
from tasks.outcomes import failing_in_one_line
from tasks.watching import show_outcome


@task(name="write document", cache_policy=NO_CACHE)
@failing_in_one_line
def write_document(run: Run, parameters: AgentRollouts, progress: Progress) -> AgentOutcome:
    """Writes the document of all attempts from the journal, and shows what is in it."""
    outcome = write_outcome(run, parameters, progress)
    show_outcome("agent-rollouts", "Agent rollouts", outcome.output.stem, outcome.rows, outcome.files, outcome.notes)
    return outcome
