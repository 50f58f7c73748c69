"""Rejection sampling: generates and scores N rollouts of every problem, reports errors, keeps the accepted ones."""

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("reject_sampling")  # before all else: the other imports take seconds

from rollmill.config.command_line import parse_command_line, report_errors
from rollmill.generation.finished import finished_outcomes
from rollmill.jobs.rejection_sampling.parameters import RejectSampling

__all__ = ["RejectSampling", "reject_sampling"]

EXAMPLES = """\
  python -m flows.reject_sampling --model_path /models/qwen --model_name qwen --num_rollout 4 --max_problems 10
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
    # Before Prefect is imported, which takes seconds: help, errors and finished runs answer at once.
    call_parameters = parse_command_line(
        RejectSampling, prog="reject_sampling", description=RejectSampling.__doc__ or "", examples=EXAMPLES
    )
    with report_errors("reject_sampling"):
        complete = finished_outcomes(
            call_parameters, call_parameters.directories, "rollmill.jobs.rejection_sampling.job:jobs"
        )
        if complete:
            from rollmill.jobs.rejection_sampling.display import print_outcomes

            if len(complete) > 1:
                from rollmill.jobs.rejection_sampling.comparison_files import write_comparison

                write_comparison(call_parameters, complete)
            print_outcomes(complete)
            raise SystemExit(0)

from prefect import flow, runtime

from rollmill.jobs.rejection_sampling.display import print_outcomes
from rollmill.jobs.rejection_sampling.job import jobs
from rollmill.jobs.rejection_sampling.outcome import RunOutcome
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.interruption import result_of
from tasks.rejection import compare_runs
from tasks.result_upload import open_uploader
from tasks.run_date import fill_in_date
from tasks.run_job import run_job, waiting_threads


@flow(
    name="reject-sampling",
    flow_run_name=lambda: f"reject-sampling {', '.join(runtime.flow_run.parameters['parameters'].model_name)}",
    task_runner=waiting_threads(),
)
@report_failure
def reject_sampling(parameters: RejectSampling) -> list[RunOutcome]:
    """Generate and score N rollouts of every problem, report errors, keep the accepted ones as training data."""
    parameters = fill_in_date(parameters)
    calls = jobs(parameters)
    with open_uploader(parameters.store_block) as store:
        outcomes = [store(run_job(job)) for job in calls]
        if len(outcomes) > 1:
            store(result_of(compare_runs.submit(parameters, outcomes)))
        return outcomes


if __name__ == "__main__":
    with report_errors("reject_sampling"), interruptible(), desk_server():
        print_outcomes(reject_sampling(call_parameters))
