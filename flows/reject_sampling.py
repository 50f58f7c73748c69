"""Rejection sampling: N rollouts for every problem, each scored; the errors reported, the good ones kept."""

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("reject_sampling")  # first of all: the rest is imported for seconds

from rollmill.config.command_line import parse_command_line, report_errors
from rollmill.generation.finished import has_finished
from rollmill.jobs.rejection_sampling.parameters import RejectSampling

EXAMPLES = """\
  python -m flows.reject_sampling --model_path /models/qwen --model_name qwen --num_rollout 4 --max_data 10
  python -m flows.reject_sampling --model_path Qwen/Qwen3-8B --model_name qwen3 --dataset problems.jsonl --verifier math
  python -m flows.reject_sampling --model_path step18 step36 --model_name s18 s36    # one run each, compared
  python -m flows.reject_sampling --model_path m --model_name m --base_url http://a:8000 --base_url http://b:8000
  python -m flows.reject_sampling --model_path m --model_name m --cluster_block gpus    # on many machines
  python -m flows.reject_sampling --model_path m --model_name m --gpu_workers 8         # one vLLM on each GPU here
  MODEL_PATH=/models/qwen MODEL_NAME=qwen NUM_ROLLOUT=32 python -m flows.reject_sampling

The same command again continues a run that was interrupted. HF_ENDPOINT names a mirror of the Hugging Face hub,
VLLM_API_KEY the key of the server, ROLLMILL_VLLM_PYTHON the Python that has vLLM.
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds: help and mistakes answer at once.
    given = parse_command_line(
        RejectSampling, prog="reject_sampling", description=RejectSampling.__doc__ or "", examples=EXAMPLES
    )
    with report_errors("reject_sampling"):
        if all(has_finished(directory, given) for directory in given.directories):
            from rollmill.jobs.rejection_sampling.display import print_outcomes
            from rollmill.jobs.rejection_sampling.finished import finished_outcomes

            with interruptible():
                complete = finished_outcomes(given)
            if complete is not None:
                print_outcomes(complete)
                raise SystemExit(0)

from prefect import flow, runtime
from prefect.task_runners import ThreadPoolTaskRunner

from blocks.inference import endpoint_config, server_config
from rollmill.generation.progress import Progress, progress_of
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.inference.backend import served
from rollmill.jobs.rejection_sampling.chat_session import chat_rollouts
from rollmill.jobs.rejection_sampling.checkpoint import Checkpoint, checkpoints, hold, open_checkpoint_run
from rollmill.jobs.rejection_sampling.display import print_outcomes
from rollmill.jobs.rejection_sampling.outcome import RunOutcome
from tasks.artifacts import track_progress
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.generation import generate_all, try_canary
from tasks.interruption import result_of
from tasks.rejection import compare_runs, score_again, sharded_rollouts, write_results
from tasks.result_upload import storing
from tasks.run_date import dated
from tasks.sharding import on_workers


@flow(
    name="reject-sampling",
    flow_run_name=lambda: f"reject-sampling {', '.join(runtime.flow_run.parameters['parameters'].model_name)}",
    # A shard's thread only waits, and as long as its last straggler: too few threads would keep the next shard back.
    task_runner=ThreadPoolTaskRunner(max_workers=512),  # type: ignore[arg-type]  # Prefect's own type is invariant
)
@report_failure
def reject_sampling(parameters: RejectSampling) -> list[RunOutcome]:
    """Gives every problem N rollouts, scores each, reports the errors, keeps the good ones as training data."""
    parameters = dated(parameters)
    with storing(parameters.store_block) as store:
        outcomes = [store(sample_checkpoint(parameters, checkpoint)) for checkpoint in checkpoints(parameters)]
        if len(outcomes) > 1:
            store(result_of(compare_runs.submit(parameters, outcomes)))
        return outcomes


def sample_checkpoint(parameters: RejectSampling, checkpoint: Checkpoint) -> RunOutcome:
    """One checkpoint: only what its run still misses is generated, and its results are written anew."""
    with hold(checkpoint), open_checkpoint_run(parameters, checkpoint) as run:
        progress = progress_of(run)
        if parameters.reverify:
            result_of(score_again.submit(run, parameters))
        elif progress.left and on_workers(parameters):
            generate_there(run, parameters, checkpoint, progress)
        elif progress.left:
            generate(run, parameters, checkpoint, progress)
        return result_of(write_results.submit(run, parameters, checkpoint, progress))


def generate(run: Run, parameters: RejectSampling, checkpoint: Checkpoint, progress: Progress) -> None:
    """Serves the model and makes the rollouts that are missing."""
    server, endpoint = server_config(parameters.server_block), endpoint_config(parameters.endpoint_block)
    with served(parameters, checkpoint.model, server=server, endpoint=endpoint) as model:
        progress.start()
        asking = chat_rollouts(parameters, model)
        session = RolloutSession(run, asking, slots=parameters.slots, progress=progress)
        with session, track_progress(progress, checkpoint.name):
            if parameters.canary:
                result_of(try_canary.submit(session))
            generate_all(session)


def generate_there(run: Run, parameters: RejectSampling, checkpoint: Checkpoint, progress: Progress) -> None:
    """Lets workers serve the model and make the rollouts that are missing."""
    with sharded_rollouts(run, parameters, checkpoint, progress) as rollouts:
        if parameters.canary:
            rollouts.try_canary()
        rollouts.make_all()


if __name__ == "__main__":
    with report_errors("reject_sampling"), interruptible(), desk_server():
        print_outcomes(reject_sampling(given))
