"""Episodes: rollouts of one or several agents in an environment, filtered by success to training data."""

import sys

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("collect_episodes")  # before all else: the other imports take seconds

from rollmill.config.command_line import report_errors
from rollmill.generation.finished import finished_outcomes
from rollmill.jobs.episodes.commands import parse
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.terminal.escapes import write_lines

__all__ = ["CollectEpisodes", "collect_episodes"]

EXAMPLES = """\
  python -m flows.collect_episodes --env_name code_env --model_path /models/qwen --total_rollouts 100
  python -m flows.collect_episodes --config code.yaml training.sft_num_episodes=500 env.max_turns=3
  python -m flows.collect_episodes --env_name math_env --policy solver=/models/a coder=/models/b,adapter=/adapters/c \\
      --agent reasoner=solver tool_user=coder --dataset problems.jsonl
  python -m flows.collect_episodes --env_name stateful_env --env world=sokoban --model_path oracle
  python -m flows.collect_episodes --env_name math_env --model_path /models/qwen --cluster_block gpus   # many machines

The same command again continues a run that was interrupted. VLLM_API_KEY holds the key of the server.
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds: help, errors and finished runs answer at once.
    with report_errors("collect_episodes"):
        call_parameters = parse(sys.argv[1:], description=CollectEpisodes.__doc__ or "", examples=EXAMPLES)
        complete = finished_outcomes(call_parameters, [call_parameters.directory], "rollmill.jobs.episodes.job:jobs")
        if complete:
            write_lines(sys.stdout, complete[0].lines())
            raise SystemExit(0)

from prefect import flow, runtime

from rollmill.jobs.episodes.job import EpisodesJob
from rollmill.jobs.episodes.outcome import CollectionOutcome
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.result_upload import open_uploader
from tasks.run_job import run_job, waiting_threads
from tasks.training import check_training, train_watched


@flow(
    name="collect-episodes",
    flow_run_name=lambda: f"collect-episodes {runtime.flow_run.parameters['parameters'].directory.name}",
    task_runner=waiting_threads(),
)
@report_failure
def collect_episodes(parameters: CollectEpisodes) -> CollectionOutcome:
    """Collect episodes in an environment, keep the turns of successful ones, and train on them if requested."""
    with open_uploader(parameters.store_block) as store:
        check_training(parameters.training("rows.jsonl"), parameters.cluster_block)
        outcome = store(run_job(EpisodesJob.of(parameters)))
        training = parameters.training(str(outcome.data)) if outcome.rows else None
        if training is None:
            return outcome
        trained = store(train_watched(training, parameters.cluster_block))
        return outcome.model_copy(update={"adapter": trained.directory})


if __name__ == "__main__":
    with report_errors("collect_episodes"), interruptible(), desk_server():
        write_lines(sys.stdout, collect_episodes(call_parameters).lines())
