"""Optimal sampling: training data drawn from q*, between a current policy and a target model."""

import sys

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("optimal_sampling")  # first of all: the rest is imported for seconds

from rollmill.config.command_line import report_errors
from rollmill.generation.finished import has_finished
from rollmill.jobs.optimal_sampling.commands import analyze_diagnostics, parse
from rollmill.jobs.optimal_sampling.parameters import AnalyzeDiagnostics, OptimalSampling
from rollmill.terminal.escapes import write_lines

DESCRIPTION = """\
Draws one answer to every prompt of a data set, token by token, from q* ~ pi_theta^alpha * pi_t^(1-alpha): the geometric
mixture of a current policy and a target model, with alpha, the weight of the policy, chosen at every token."""

EXAMPLES = """\
  python -m flows.optimal_sampling --model_theta meta-llama/Llama-2-7b-hf --model_t meta-llama/Llama-2-7b-chat-hf \\
      --dataset agentica-org/DeepScaleR-Preview-Dataset --output data/generated.jsonl --save_diagnostics
  python -m flows.optimal_sampling --model_theta /models/qwen --adapter_t /adapters/tuned --dataset prompts.jsonl \\
      --alpha_method entropy --num_samples 1000 --output data/entropy.jsonl
  python -m flows.optimal_sampling --model_theta /models/qwen --hint "The answer is {answer}." --dataset math.jsonl \\
      --output data/hinted.jsonl
  python -m flows.optimal_sampling analyze_diagnostics data/*.diagnostics.jsonl --output analysis.png

The same command again continues a run that was interrupted; --start_idx and --num_samples add rows to it.
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds, and which the comparison of files never needs.
    with report_errors("optimal_sampling"):
        given = parse(sys.argv[1:], description=DESCRIPTION, examples=EXAMPLES)
        if isinstance(given, AnalyzeDiagnostics):
            with interruptible():
                analyze_diagnostics(given)
            raise SystemExit(0)
        asked: OptimalSampling = given
        if has_finished(asked.directory, asked):
            from rollmill.jobs.optimal_sampling.finished import finished_outcome

            with interruptible():
                outcome = finished_outcome(asked)
            if outcome is not None:
                write_lines(sys.stdout, outcome.lines())
                raise SystemExit(0)

from prefect import flow, runtime

from rollmill.generation.run import Run
from rollmill.jobs.optimal_sampling.outcome import SamplingOutcome
from rollmill.jobs.optimal_sampling.progress import SamplingProgress, sampling_progress
from rollmill.jobs.optimal_sampling.run import hold, open_sampling
from tasks.artifacts import track_progress
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.interruption import result_of
from tasks.optimal_sampling import draw_all, sampling_workers, write_all_samples
from tasks.result_upload import storing


@flow(
    name="optimal-sampling",
    flow_run_name=lambda: f"optimal-sampling {runtime.flow_run.parameters['parameters'].directory.name}",
)
@report_failure
def optimal_sampling(parameters: OptimalSampling) -> SamplingOutcome:
    """Draws the samples that are missing from q*, and writes all that there are."""
    with hold(parameters), open_sampling(parameters) as run, storing(parameters.store_block) as store:
        progress = sampling_progress(run, parameters)
        if progress.left:
            sample(run, parameters, progress)
        return store(result_of(write_all_samples.submit(run, parameters, progress)))


def sample(run: Run, parameters: OptimalSampling, progress: SamplingProgress) -> None:
    """Starts workers and lets them draw."""
    with track_progress(progress, parameters.directory.name), sampling_workers(parameters) as workers:
        draw_all(run, parameters, workers, progress)


if __name__ == "__main__":
    with report_errors("optimal_sampling"), interruptible(), desk_server():
        write_lines(sys.stdout, optimal_sampling(asked).lines())
