"""Agent rollouts: N attempts at every coding problem, in sandboxes, scored by tests and speed."""

import sys

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("agent_rollouts")  # first of all: the rest is imported for seconds

from rollmill.config.command_line import report_errors
from rollmill.generation.finished import has_finished
from rollmill.jobs.agent_rollouts.commands import parse
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.terminal.escapes import write_lines

DESCRIPTION = """\
Lets an agent (mini-swe-agent) work on repositories in sandboxes, any number of times each, scores every attempt by
tests and by speed, and writes one document of all of them."""

EXAMPLES = """\
  python -m flows.agent_rollouts generate-multi --dataset examples/performance_problems/dataset.json \\
      --model /models/qwen --output training_data/small.json --samples-per-task 8 --workers 4
  python -m flows.agent_rollouts generate-multi --dataset data.json --model Qwen/Qwen3-8B --base-url http://host:8000 \\
      --docker-server host:9527 --eval-server host:9528 --output out.json --samples-per-task 32
  python -m flows.agent_rollouts generate-single --instance instance.json --model m --base-url http://host:8000 \\
      --output one.json
  python -m flows.agent_rollouts generate-multi --dataset /shared/data.json --model /shared/qwen --output out.json \\
      --samples-per-task 32 --cluster-block gpus    # on many machines

The same command again continues a run that was interrupted. VLLM_API_KEY holds the key of the server.
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds: help and mistakes answer at once.
    with report_errors("agent_rollouts"):
        asked = parse(sys.argv[1:], description=DESCRIPTION, examples=EXAMPLES)
        if has_finished(asked.directory, asked):
            from rollmill.jobs.agent_rollouts.finished import finished_outcome

            with interruptible():
                outcome = finished_outcome(asked)
            if outcome is not None:
                write_lines(sys.stdout, outcome.lines())
                raise SystemExit(0)

from prefect import flow, runtime
from prefect.task_runners import ThreadPoolTaskRunner

from blocks.inference import endpoint_config, server_config
from blocks.sandboxes import evaluation_service, sandbox_service
from rollmill.generation.progress import Progress, progress_of
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.inference.backend import served
from rollmill.jobs.agent_rollouts.agent_session import agents_of, model_of
from rollmill.jobs.agent_rollouts.outcome import AgentOutcome
from rollmill.jobs.agent_rollouts.run import hold, open_agent_run
from tasks.agent_rollouts import sharded_attempts, write_document
from tasks.artifacts import logged_to, track_progress
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.generation import generate_all
from tasks.interruption import result_of
from tasks.result_upload import storing
from tasks.sharding import on_workers


@flow(
    name="agent-rollouts",
    flow_run_name=lambda: f"agent-rollouts {runtime.flow_run.parameters['parameters'].directory.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=512),  # type: ignore[arg-type]  # Prefect's own type is invariant
)
@report_failure
def agent_rollouts(parameters: AgentRollouts) -> AgentOutcome:
    """Gives every coding problem N attempts by an agent in a sandbox, and scores each by tests and speed."""
    with (
        logged_to(parameters.log_file),
        hold(parameters),
        open_agent_run(parameters) as run,
        storing(parameters.store_block) as store,
    ):
        progress = progress_of(run)
        if progress.left and on_workers(parameters):
            generate_there(run, parameters, progress)
        elif progress.left:
            generate(run, parameters, progress)
        return store(result_of(write_document.submit(run, parameters, progress)))


def generate(run: Run, parameters: AgentRollouts, progress: Progress) -> None:
    """Serves the model and makes the attempts that are missing."""
    sandboxes, evaluations = sandbox_service(parameters.sandbox_block), evaluation_service(parameters.eval_block)
    server, endpoint = server_config(parameters.server_block), endpoint_config(parameters.endpoint_block)
    with (
        served(parameters, model_of(parameters), server=server, endpoint=endpoint) as model,
        agents_of(parameters, model, sandboxes=sandboxes, evaluations=evaluations) as agents,
    ):
        progress.start()
        session = RolloutSession(run, agents, slots=parameters.workers, progress=progress)
        with session, track_progress(progress, parameters.directory.name):
            generate_all(session)


def generate_there(run: Run, parameters: AgentRollouts, progress: Progress) -> None:
    """Lets workers serve the model and make the attempts that are missing."""
    with sharded_attempts(run, parameters, progress) as attempts:
        attempts.make_all()


if __name__ == "__main__":
    with report_errors("agent_rollouts"), interruptible(), desk_server():
        write_lines(sys.stdout, agent_rollouts(asked).lines())
