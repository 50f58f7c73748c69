"""Agent rollouts: N attempts at every coding problem, in sandboxes, scored by tests and speed."""

import sys

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("agent_rollouts")  # before all else: the other imports take seconds

from rollmill.config.command_line import report_errors
from rollmill.generation.finished import finished_outcomes
from rollmill.jobs.agent_rollouts.commands import parse
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.terminal.escapes import write_lines

__all__ = ["AgentRollouts", "agent_rollouts"]

DESCRIPTION = """\
Lets an agent (mini-swe-agent) work on repositories in sandboxes, any number of times each, scores every attempt by
tests and by speed, and writes one document of all of them."""

EXAMPLES = """\
  python -m flows.agent_rollouts generate-multi --dataset examples/performance_problems/dataset.json \\
      --model-path /models/qwen --output training_data/small.json --num-rollout 8 --concurrency 4
  python -m flows.agent_rollouts generate-multi --dataset data.json --model-path Qwen/Qwen3-8B \\
      --base-url http://host:8000 --sandbox-server host:9527 --eval-server host:9528 --output out.json --num-rollout 32
  python -m flows.agent_rollouts generate-single --instance instance.json --model-path m \\
      --base-url http://host:8000 --output one.json
  python -m flows.agent_rollouts generate-multi --dataset /shared/data.json --model-path /shared/qwen \\
      --output out.json --num-rollout 32 --cluster-block gpus    # on many machines

The same command again continues a run that was interrupted. VLLM_API_KEY holds the key of the server.
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds: help, errors and finished runs answer at once.
    with report_errors("agent_rollouts"):
        call_parameters = parse(sys.argv[1:], description=DESCRIPTION, examples=EXAMPLES)
        complete = finished_outcomes(
            call_parameters, [call_parameters.directory], "rollmill.jobs.agent_rollouts.job:jobs"
        )
        if complete:
            write_lines(sys.stdout, complete[0].lines())
            raise SystemExit(0)

from prefect import flow, runtime

from rollmill.jobs.agent_rollouts.job import AgentRolloutsJob
from rollmill.jobs.agent_rollouts.outcome import AgentOutcome
from tasks.artifacts import log_to_file
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.result_upload import open_uploader
from tasks.run_job import run_job, waiting_threads


@flow(
    name="agent-rollouts",
    flow_run_name=lambda: f"agent-rollouts {runtime.flow_run.parameters['parameters'].directory.name}",
    task_runner=waiting_threads(),
)
@report_failure
def agent_rollouts(parameters: AgentRollouts) -> AgentOutcome:
    """Run N attempts of an agent at every coding problem, each in a sandbox, and score them by tests and speed."""
    with log_to_file(parameters.log_file), open_uploader(parameters.store_block) as store:
        return run_job(AgentRolloutsJob.of(parameters), store)


if __name__ == "__main__":
    with report_errors("agent_rollouts"), interruptible(), desk_server():
        write_lines(sys.stdout, agent_rollouts(call_parameters).lines())
