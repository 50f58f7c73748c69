"""The end of a run of agents, and what it shows."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from rollmill.agent_rollouts.outcome import AgentOutcome, write_outcome
from rollmill.agent_rollouts.parameters import AgentRollouts
from rollmill.rollouts.progress import Progress
from rollmill.rollouts.run import Run
from tasks.outcomes import failing_in_one_line
from tasks.watching import show_picture, show_table, show_text


@task(name="write document", cache_policy=NO_CACHE)
@failing_in_one_line
def write_document(run: Run, parameters: AgentRollouts, progress: Progress) -> AgentOutcome:
    """Writes the document of all attempts from the journal, and shows what is in it."""
    outcome = write_outcome(run, parameters, progress)
    name = outcome.output.stem
    show_table("agent-rollouts", outcome.rows, f"Agent rollouts: {name}")
    show_text("agent-rollouts-statistics", outcome.files["statistics"].read_text(), f"Statistics of {name}")
    show_picture("agent-rollouts-overview", outcome.files["picture"], f"Overview of {name}")
    for note in outcome.notes:
        get_run_logger().warning(note)
    return outcome
