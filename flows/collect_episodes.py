"""Environments: episodes of one or several agents, filtered by success, that become training data."""

import sys

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("collect_episodes")  # first of all: the rest is imported for seconds

from rollmill.config.command_line import report_errors
from rollmill.generation.finished import has_finished
from rollmill.jobs.episodes.commands import parse
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.terminal.escapes import write_lines

EXAMPLES = """\
  python -m flows.collect_episodes --env_name code_env --model_path /models/qwen --num_episodes 100
  python -m flows.collect_episodes --config code.yaml training.sft_num_episodes=500 env.max_turns=3
  python -m flows.collect_episodes --env_name math_env --policy solver=/models/a coder=/models/b,adapter=/adapters/c \\
      --agent reasoner=solver tool_user=coder --dataset problems.jsonl
  python -m flows.collect_episodes --env_name stateful_env --env world=sokoban --model_path oracle
  python -m flows.collect_episodes --env_name math_env --model_path /models/qwen --cluster_block gpus   # many machines

The same command again continues a run that was interrupted. VLLM_API_KEY holds the key of the server.
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds: help and mistakes answer at once.
    with report_errors("collect_episodes"):
        asked = parse(sys.argv[1:], description=CollectEpisodes.__doc__ or "", examples=EXAMPLES)
        if has_finished(asked.directory, asked) and not asked.run_sft_training:
            from rollmill.jobs.episodes.finished import finished_outcome

            with interruptible():
                outcome = finished_outcome(asked)
            if outcome is not None:
                write_lines(sys.stdout, outcome.lines())
                raise SystemExit(0)

from prefect import flow, runtime
from prefect.task_runners import ThreadPoolTaskRunner

from blocks.inference import endpoint_config, server_config
from blocks.sandboxes import sandbox_service
from blocks.search import search_service
from rollmill.generation.progress import Progress, progress_of
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.jobs.episodes.episode_session import episodes_of
from rollmill.jobs.episodes.outcome import CollectionOutcome
from rollmill.jobs.episodes.policy_assignment import policies_of, serving_cast
from rollmill.jobs.episodes.run import hold, open_collection
from tasks.artifacts import track_progress
from tasks.ephemeral_server import desk_server
from tasks.episodes import sharded_episodes, write_training_rows
from tasks.errors import report_failure
from tasks.generation import generate_all
from tasks.interruption import result_of
from tasks.result_upload import storing
from tasks.sharding import on_workers
from tasks.training import train_watched


@flow(
    name="collect-episodes",
    flow_run_name=lambda: f"collect-episodes {runtime.flow_run.parameters['parameters'].directory.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=512),  # type: ignore[arg-type]  # Prefect's own type is invariant
)
@report_failure
def collect_episodes(parameters: CollectEpisodes) -> CollectionOutcome:
    """Plays episodes in an environment, keeps the turns of those that succeed, and trains on them if asked to."""
    with storing(parameters.store_block) as store:
        with hold(parameters), open_collection(parameters) as run:
            progress = progress_of(run)
            if progress.left and on_workers(parameters):
                collect_there(run, parameters, progress)
            elif progress.left:
                collect(run, parameters, progress)
            outcome = store(result_of(write_training_rows.submit(run, parameters, progress)))
        training = parameters.training(str(outcome.data)) if outcome.rows else None
        if training is None:
            return outcome
        trained = store(train_watched(training, parameters.cluster_block))
        return outcome.model_copy(update={"adapter": trained.directory})


def collect(run: Run, parameters: CollectEpisodes, progress: Progress) -> None:
    """Serves the policies and plays the episodes that are missing."""
    sandboxes, search = sandbox_service(parameters.sandbox_block), search_service(parameters.search_block)
    server, endpoint = server_config(parameters.server_block), endpoint_config(parameters.endpoint_block)
    specs = policies_of(parameters)
    with serving_cast(parameters, specs, server=server, endpoint=endpoint) as served:
        progress.start()
        maker = episodes_of(parameters, specs, run.directory, served, sandboxes=sandboxes, search=search)
        session = RolloutSession(run, maker, slots=parameters.concurrency, progress=progress)
        with session, track_progress(progress, parameters.directory.name):
            generate_all(session)


def collect_there(run: Run, parameters: CollectEpisodes, progress: Progress) -> None:
    """Lets workers serve the policies and play the episodes that are missing."""
    with sharded_episodes(run, parameters, progress) as episodes:
        episodes.make_all()


if __name__ == "__main__":
    with report_errors("collect_episodes"), interruptible(), desk_server():
        write_lines(sys.stdout, collect_episodes(asked).lines())
