"""A run of agents on many machines, its end, and what it shows."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prefect import task
from prefect.cache_policies import NO_CACHE

from blocks.inference import endpoint_config, server_config
from blocks.sandboxes import evaluation_service, sandbox_service
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.generation.shard import ShardRun
from rollmill.generation.worker_session import IsGivenUp
from rollmill.jobs.agent_rollouts.agent_session import AgentOrder, agent_session
from rollmill.jobs.agent_rollouts.outcome import AgentOutcome, write_outcome
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from tasks.artifacts import show_outcome
from tasks.errors import report_failure
from tasks.sharding import ShardedRollouts, sharded


def opened_agents(
    order: AgentOrder, part: ShardRun, is_given_up: IsGivenUp
) -> AbstractContextManager[RolloutSession[ShardRun]]:
    """The session of a worker, which reads the blocks there."""
    parameters = order.parameters
    return agent_session(
        order,
        part,
        is_given_up,
        server=server_config(parameters.server_block),
        endpoint=endpoint_config(parameters.endpoint_block),
        sandboxes=sandbox_service(parameters.sandbox_block),
        evaluations=evaluation_service(parameters.eval_block),
    )


def sharded_attempts(
    run: Run, parameters: AgentRollouts, progress: Progress
) -> AbstractContextManager[ShardedRollouts]:
    """What makes the run's attempts on workers."""
    order, name = AgentOrder(parameters.anywhere()), parameters.directory.name
    return sharded(run, progress, parameters, name, opening=opened_agents, order=order, slots=parameters.workers)


@task(name="write document", cache_policy=NO_CACHE)
@report_failure
def write_document(run: Run, parameters: AgentRollouts, progress: Progress) -> AgentOutcome:
    """Writes the document of all attempts from the journal, and shows what is in it."""
    outcome = write_outcome(run, parameters, progress)
    show_outcome("agent-rollouts", "Agent rollouts", outcome.output.stem, outcome.rows, outcome.files, outcome.notes)
    return outcome
