"""Trains an adapter, and compares the model before and after."""

from __future__ import annotations

import threading
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from blocks.cluster import dask_cluster, given_up
from blocks.inference import server_config
from rollmill.errors import RunStoppedError
from rollmill.generation.job import check_problems
from rollmill.generation.services import Services
from rollmill.inference.server import ServerConfig
from rollmill.jobs.evaluation.before_after import BeforeAfter, compare_before_after
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from rollmill.jobs.rejection_sampling.job import jobs
from rollmill.jobs.training.advice import many_texts
from rollmill.jobs.training.hardware import training_placement
from rollmill.jobs.training.manifest import Trained, read_training_manifest
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.prepared import DROPPED
from rollmill.jobs.training.progress import TrainingProgress
from rollmill.jobs.training.recorded_rows import recorded_line
from rollmill.jobs.training.stop_tokens import GENERATION_CONFIG
from rollmill.jobs.training.training import run_training
from rollmill.terminal.text_table import aligned
from tasks.artifacts import show_files, show_picture, show_table, track_progress
from tasks.cluster import run_on_cluster
from tasks.errors import report_failure
from tasks.interruption import result_of


@task(name="train", cache_policy=NO_CACHE, tags=["training"])
@report_failure
def train(parameters: TrainLora, stop: threading.Event | None = None) -> Trained:
    """Train in a separate process until the end or until `stop` is set; continue an interrupted training."""
    for note in check_training(parameters):
        get_run_logger().info("training: %s", note)
    trained = run_training(parameters, stop=stop.is_set if stop else given_up())
    get_run_logger().info("%d steps on %d rows, loss %.4g", trained.steps, trained.rows, trained.train_loss)
    if line := many_texts(trained.rows, trained.texts):
        get_run_logger().warning(line)
    if trained.dropped:
        dropped = ", ".join(f"{count} {reason}" for reason, count in trained.dropped.items())
        get_run_logger().warning("rows left out, each in %s: %s", trained.directory / DROPPED, dropped)
    if trained.turns_left_out:
        turns = ", ".join(f"{count} {reason}" for reason, count in trained.turns_left_out.items())
        get_run_logger().warning("turns left out of rows used, each in %s: %s", trained.directory / DROPPED, turns)
    if line := recorded_line(trained.recorded_rows, trained.encoded_anew):
        get_run_logger().info(line)
    if trained.stops_added:
        get_run_logger().info(
            "the base does not stop at %s, which training teaches as the end: added to %s",
            ", ".join(trained.stops_added), trained.directory / GENERATION_CONFIG,
        )  # fmt: skip
    show_picture("train-loss", trained.directory / "loss.png", "Loss")
    show_files("train-files", trained.directory.name, trained.directory, trained.files)
    return trained


def check_training(parameters: TrainLora | None, cluster_block: str | None = None) -> tuple[str, ...]:
    """Check that a training fits on this machine's GPUs, before hours of other work; return what to say of their use.

    Checks nothing without a training, if a cluster's worker trains, or if the training is finished. Raises
    `InputError` as `training_placement` does.
    """
    if parameters is None or cluster_block or _is_trained(Path(parameters.output_dir)):
        return ()
    return training_placement(parameters).notes


def check_evaluation(parameters: TrainAndEvaluate) -> None:
    """Check that the training and the evaluations can start, before hours of training.

    Raises `InputError` for held-out problems, a verifier or a template that cannot be used, and as `check_training` and
    `check_server` do.
    """
    check_training(parameters.training(), parameters.cluster_block)
    if parameters.held_out is None:
        return
    for job in jobs(parameters.before()):
        check_problems(job)
    check_server(parameters)


def check_server(parameters: TrainAndEvaluate) -> None:
    """Check that the evaluation's server can start on this machine, before hours of training.

    Checks nothing if there is no evaluation, if it runs on a cluster, or if the training is finished. Raises as
    `ServerConfig.vllm` and the evaluation's `placement` do.
    """
    if parameters.held_out is None or parameters.cluster_block or _is_trained(Path(parameters.output_dir)):
        return
    services = Services(server=server_config(parameters.server_block))
    for job in jobs(parameters.before()):
        job.placement(services)
    (services.server or ServerConfig()).vllm()


def _is_trained(directory: Path) -> bool:
    manifest = read_training_manifest(directory)
    return manifest is not None and manifest.result is not None


def train_watched(parameters: TrainLora, cluster_block: str | None) -> Trained:
    """Train on this machine, or on a worker of the cluster that a block names, and show the progress.

    Raises `InputError` if there is no such block, and `RunStoppedError` if the worker's files are not visible here.
    """
    cluster, directory = dask_cluster(cluster_block), Path(parameters.output_dir)
    with track_progress(TrainingProgress(directory), f"train {directory}"):
        if cluster is None:
            return _train_locally(parameters)
        task_parameters = {"parameters": parameters.with_absolute_paths()}
        trained = run_on_cluster(cluster, train, task_parameters, amount=parameters.num_gpus)
        manifest = read_training_manifest(directory)
        if manifest is None or manifest.result is None:
            raise RunStoppedError(
                f"the cluster's worker has trained into its own {trained.directory}, which is not here: "
                "let both share --output_dir"
            )
        return trained.at(directory)


def _train_locally(parameters: TrainLora) -> Trained:
    """Train on this machine; a signal that stops the flow stops the training, too."""
    stop = threading.Event()
    try:
        return result_of(train.submit(parameters, stop))
    except BaseException:  # Ctrl-C, SIGTERM: they do not reach the task's thread, for which the flow waits
        stop.set()
        raise


@task(name="compare before and after", cache_policy=NO_CACHE)
@report_failure
def compare(trained: Trained) -> BeforeAfter:
    """Compare the model before and after training on held-out problems."""
    comparison = compare_before_after(trained.directory)
    show_table("train-evaluation", comparison.rows(), "Right on held-out problems, before and after")
    show_picture("train-evaluation-picture", comparison.picture, "Right on held-out problems, before and after")
    for line in aligned(list(comparison.rows()[0]), comparison.rows()):
        get_run_logger().info(line)
    return comparison
