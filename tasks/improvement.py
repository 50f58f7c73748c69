"""The steps of the improvement loop as tasks that publish artifacts."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from rollmill.jobs.improvement import rounds
from rollmill.jobs.improvement.history import History
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.improvement.rounds import LoopResult, Plan
from rollmill.jobs.improvement.training_rows import TrainingRows
from rollmill.jobs.training.manifest import Trained
from tasks.artifacts import show_files, show_picture, show_table
from tasks.errors import report_failure


@task(name="check problems", cache_policy=NO_CACHE)
@report_failure
def check_problems(parameters: Improve) -> None:
    """Refuse held-out problems that are trained on."""
    get_run_logger().info("%d held-out problems, none of them trained on", rounds.check_problems(parameters))


@task(name="begin", cache_policy=NO_CACHE)
@report_failure
def begin_history(parameters: Improve) -> History:
    """Read the evaluations of the base model."""
    history = rounds.begin(parameters)
    _show(history)
    return history


@task(name="choose training rows", cache_policy=NO_CACHE)
@report_failure
def choose_training_rows(parameters: Improve, plan: Plan) -> TrainingRows:
    """Select and write the training rows of a round."""
    chosen = rounds.choose_rows(parameters, plan)
    get_run_logger().info("round %d: %s", plan.number, chosen.line())
    return chosen


@task(name="judge", cache_policy=NO_CACHE)
@report_failure
def judge_round(parameters: Improve, history: History, plan: Plan, chosen: TrainingRows, trained: Trained) -> History:
    """Accept a round or roll it back, by its held-out evaluation.

    Args:
        parameters: Of the whole loop.
        history: The rounds before.
        plan: The round's data sources, training and folder.
        chosen: The rows that the round trained on.
        trained: The training's result.
    """
    history = rounds.judge(parameters, history, plan, chosen, trained)
    rounds.write_history(parameters, history)
    _show(history)
    return history


@task(name="end", cache_policy=NO_CACHE)
@report_failure
def end_history(parameters: Improve, history: History) -> LoopResult:
    """Write the rounds' numbers and picture."""
    improved = rounds.write_history(parameters, history)
    show_picture("improve-picture", improved.files["picture"], "Held-out accuracy after each round")
    show_files("improve-files", improved.directory.name, improved.directory, improved.files)
    return improved


def _show(history: History) -> None:
    show_table("improve-rounds", rounds.round_rows(history), "Held-out accuracy after each round")
