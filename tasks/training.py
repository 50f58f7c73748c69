"""Training, and what it changed."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from rollmill.evaluation.before_after import compare_before_after
from rollmill.text_table import aligned
from rollmill.training.manifest import Trained
from rollmill.training.parameters import TrainLora
from rollmill.training.training import run_training
from tasks.outcomes import failing_in_one_line
from tasks.watching import show_picture, show_table


@task(name="train", cache_policy=NO_CACHE, tags=["training"])
@failing_in_one_line
def train(parameters: TrainLora) -> Trained:
    """Trains in a process of its own; continues what was interrupted."""
    trained = run_training(parameters)
    get_run_logger().info("%d steps on %d rows, loss %.4g", trained.steps, trained.rows, trained.train_loss)
    show_picture("train-loss", trained.directory / "loss.png", "Loss")
    return trained


@task(name="compare before and after", cache_policy=NO_CACHE)
@failing_in_one_line
def compare(trained: Trained) -> None:
    """Shows what training changed on held-out problems."""
    found = compare_before_after(trained.directory)
    show_table("train-evaluation", found.rows(), "Right on held-out problems, before and after")
    show_picture("train-evaluation-picture", found.picture, "Right on held-out problems, before and after")
    for line in aligned(list(found.rows()[0]), found.rows()):
        get_run_logger().info(line)
