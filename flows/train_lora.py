"""LoRA training on exported rows, evaluated before and after on held-out problems."""

import sys

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("train_lora")  # before all else: the other imports take seconds

from rollmill.config.command_line import parse_command_line, report_errors
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate

__all__ = ["TrainAndEvaluate", "train_lora"]

EXAMPLES = """\
  python -m flows.train_lora --model_path /models/qwen --train_data curated/sft.jsonl --output_dir adapter
  python -m flows.train_lora --model_path /models/qwen --train_data curated --output_dir adapter --merge \\
      --held_out test.jsonl --verifier math
  python -m flows.train_lora --model_path /shared/qwen --train_data /shared/sft.jsonl --output_dir /shared/adapter \\
      --cluster_block gpus    # on a worker of the Dask cluster that the block dask-cluster/gpus names

The same command again continues from the last checkpoint.
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds: help and errors answer at once.
    call_parameters = parse_command_line(
        TrainAndEvaluate, prog="train_lora", description=TrainAndEvaluate.__doc__ or "", examples=EXAMPLES
    )

from prefect import flow, runtime

from flows.reject_sampling import reject_sampling
from rollmill.jobs.training.manifest import Trained
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.interruption import result_of
from tasks.result_upload import open_uploader
from tasks.training import check_evaluation, compare, train_watched


@flow(name="train-lora", flow_run_name=lambda: f"train-lora {runtime.flow_run.parameters['parameters'].output_dir}")
@report_failure
def train_lora(parameters: TrainAndEvaluate) -> Trained:
    """Train an adapter and, given held-out problems, evaluate the model before and after."""
    with open_uploader(parameters.store_block) as store:
        check_evaluation(parameters)
        trained = store(train_watched(parameters.training(), parameters.cluster_block))
        if parameters.held_out is not None:
            reject_sampling(parameters.before())
            reject_sampling(parameters.after(trained))
            store(result_of(compare.submit(trained)))
        return trained


if __name__ == "__main__":
    with report_errors("train_lora"), interruptible(), desk_server():
        sys.stdout.write(f"{train_lora(call_parameters).model_dump_json(indent=2)}\n")
