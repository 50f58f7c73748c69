"""Optimal sampling: draws training data from q*, a mixture of a current policy and a target model."""

import sys

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("optimal_sampling")  # before all else: the other imports take seconds

from rollmill.config.command_line import report_errors
from rollmill.generation.finished import finished_outcomes
from rollmill.jobs.optimal_sampling.commands import analyze_diagnostics, parse
from rollmill.jobs.optimal_sampling.parameters import AnalyzeDiagnostics, OptimalSampling
from rollmill.terminal.escapes import write_lines

__all__ = ["OptimalSampling", "optimal_sampling"]

DESCRIPTION = """\
Draws one answer to every prompt of a data set, token by token, from q* ~ pi_theta^alpha * pi_t^(1-alpha): the geometric
mixture of a current policy and a target model, with alpha, the weight of the policy, chosen at every token."""

EXAMPLES = """\
  python -m flows.optimal_sampling --model_theta meta-llama/Llama-2-7b-hf --model_t meta-llama/Llama-2-7b-chat-hf \\
      --dataset agentica-org/DeepScaleR-Preview-Dataset --output data/generated.jsonl --save_diagnostics
  python -m flows.optimal_sampling --model_theta /models/qwen --adapter_t /adapters/tuned --dataset prompts.jsonl \\
      --alpha_method entropy --total_rollouts 1000 --output data/entropy.jsonl
  python -m flows.optimal_sampling --model_theta /models/qwen --hint "The answer is {answer}." --dataset math.jsonl \\
      --output data/hinted.jsonl
  python -m flows.optimal_sampling analyze_diagnostics data/*.diagnostics.jsonl --output analysis.png

The same command again continues a run that was interrupted; --start_idx and --total_rollouts add rows to it.
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds, and which `analyze_diagnostics` does not need.
    with report_errors("optimal_sampling"):
        call = parse(sys.argv[1:], description=DESCRIPTION, examples=EXAMPLES)
        if isinstance(call, AnalyzeDiagnostics):
            with interruptible():
                analyze_diagnostics(call)
            raise SystemExit(0)
        call_parameters: OptimalSampling = call
        complete = finished_outcomes(
            call_parameters, [call_parameters.directory], "rollmill.jobs.optimal_sampling.job:jobs"
        )
        if complete:
            write_lines(sys.stdout, complete[0].lines())
            raise SystemExit(0)

from prefect import flow, runtime

from rollmill.jobs.optimal_sampling.job import OptimalSamplingJob
from rollmill.jobs.optimal_sampling.outcome import SamplingOutcome
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.result_upload import open_uploader
from tasks.run_job import run_job


@flow(
    name="optimal-sampling",
    flow_run_name=lambda: f"optimal-sampling {runtime.flow_run.parameters['parameters'].directory.name}",
)
@report_failure
def optimal_sampling(parameters: OptimalSampling) -> SamplingOutcome:
    """Draw the missing samples from q*, and write all samples."""
    with open_uploader(parameters.store_block) as store:
        return run_job(OptimalSamplingJob.of(parameters), store)


if __name__ == "__main__":
    with report_errors("optimal_sampling"), interruptible(), desk_server():
        write_lines(sys.stdout, optimal_sampling(call_parameters).lines())
