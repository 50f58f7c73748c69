"""The improvement loop: rounds of rollouts, training and evaluation, kept only if they improve the policy."""

import sys
from importlib import import_module
from typing import Any

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("improve")  # before all else: the other imports take seconds

from rollmill.config.command_line import parse_command_line, report_errors
from rollmill.jobs.improvement.parameters import Improve

__all__ = ["Improve", "improve"]

EXAMPLES = """\
  python -m flows.improve --model_path /models/qwen --dataset train.jsonl --held_out test.jsonl
  python -m flows.improve --model_path /models/qwen --dataset train.jsonl --held_out test.jsonl \\
      --few_shot examples.jsonl --rounds 5 --at_most_k 2 --verifier math
  python -m flows.improve --model_path /models/qwen --dataset train.jsonl --held_out test.jsonl \\
      --feed reject_sampling=harder.yaml data=agents/rollouts.json    # rows of other problems, and rows that exist

The same command again continues where it was interrupted. What a round makes is kept in <output_dir>/round_<n>/.
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds: help and errors answer at once.
    call_parameters = parse_command_line(Improve, prog="improve", description=Improve.__doc__ or "", examples=EXAMPLES)

from prefect import Flow, flow, runtime

from flows.reject_sampling import reject_sampling
from rollmill.jobs.improvement.history import History
from rollmill.jobs.improvement.rounds import LoopResult, base_evaluations, lock_loop, plan_round
from rollmill.terminal.escapes import write_lines
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.improvement import begin_history, check_problems, choose_training_rows, end_history, judge_round
from tasks.interruption import result_of
from tasks.result_upload import open_uploader
from tasks.run_date import fill_in_date
from tasks.training import check_training, train_watched


def generating_flow(kind: str) -> Flow[..., Any]:
    """Return the flow that generates the rollouts of a kind of data source; both have the same name."""
    flow: Flow[..., Any] = getattr(import_module(f"flows.{kind}"), kind)
    return flow


@flow(name="improve", flow_run_name=lambda: f"improve {runtime.flow_run.parameters['parameters'].model_path}")
@report_failure
def improve(parameters: Improve) -> LoopResult:
    """Train a policy on its own filtered rollouts, as long as it improves on held-out problems."""
    parameters = fill_in_date(parameters)
    with lock_loop(parameters), open_uploader(parameters.store_block) as store:
        check_training(parameters.training(1, parameters.model_path), parameters.cluster_block)
        result_of(check_problems.submit(parameters))
        for evaluation in base_evaluations(parameters):
            reject_sampling(evaluation)
        history = result_of(begin_history.submit(parameters))
        while history.continues(parameters.rounds):
            history = run_round(parameters, history)
        return store(result_of(end_history.submit(parameters, history)))


def run_round(parameters: Improve, history: History) -> History:
    """Run one round, or the rest of an interrupted one: rollouts, training rows, training, evaluation."""
    plan = plan_round(parameters, history)
    for feed in plan.to_generate:
        generating_flow(feed.kind)(feed.parameters)
    chosen = result_of(choose_training_rows.submit(parameters, plan))
    trained = train_watched(plan.training, parameters.cluster_block)
    reject_sampling(parameters.evaluation(str(trained.merged), str(plan.folder)))
    return result_of(judge_round.submit(parameters, history, plan, chosen, trained))


if __name__ == "__main__":
    with report_errors("improve"), interruptible(), desk_server():
        write_lines(sys.stdout, improve(call_parameters).lines())
