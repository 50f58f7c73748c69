"""Runs a training: one directory, one identity, and a worker process that can be killed and resumed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rollmill.errors import InputError
from rollmill.generation.lock import LOCK, lock_directory
from rollmill.generation.manifest import git_commit, host, now
from rollmill.inference.model_identity import model_identity
from rollmill.jobs.training.advice import step_line
from rollmill.jobs.training.checkpoints import CHECKPOINTS, TrainingCheckpoint, complete_checkpoints, last_checkpoint
from rollmill.jobs.training.data_files import DataFiles, find_data
from rollmill.jobs.training.hardware import used_device
from rollmill.jobs.training.manifest import (
    RECIPE,
    Trained,
    TrainingManifest,
    check_same_training,
    file_facts,
    is_first_recipe,
    read_training_manifest,
    training_identity,
    training_versions,
)
from rollmill.jobs.training.memory_plan import check_four_bit, read_plan
from rollmill.jobs.training.merging import MERGED
from rollmill.jobs.training.metrics import METRICS, MetricsLine, cut_metrics, read_metrics
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.prepared import PreparedRows, read_prepared
from rollmill.jobs.training.process import run_worker
from rollmill.jobs.training.publishing import publish, write_card_and_plot
from rollmill.jobs.training.work import LOGS, WORK, Stage, TrainingWork
from rollmill.jobs.training.worker_lock import wait_until_free

_log = logging.getLogger(__name__)

Stop = Callable[[], bool]


def run_training(parameters: TrainLora, *, stop: Stop | None = None) -> Trained:
    """Train, or resume an interrupted run of the same parameters; a finished run is left as it is.

    The model is loaded in a worker process, which ends with this one, however that ends. `stop` is polled while the
    worker runs, and ends it when it returns True. The output directory then has weights and tokenizer, `metrics.jsonl`,
    `loss.png`, `README.md`, `manifest.json`, `dropped.jsonl`, `logs/`, and with `merge` also `merged/`.

    Raises `InputError` for what the user can fix (data, a directory of another run, memory, a loss that diverged), and
    `RunStoppedError` where the process ended for no known reason, or was stopped.
    """
    directory = Path(parameters.output_dir)
    data = find_data(parameters.train_data, parameters.validation_data, own_validation=not parameters.validation_share)
    base = _resolve_base(parameters.model_path)
    check_four_bit(parameters)
    with lock_directory(directory, flag="--output_dir"):
        work = _work(parameters, data, base, directory)
        wait_until_free(work.lock)
        manifest = _open(parameters, data, base, directory)
        if manifest.result is None:
            manifest = _train(manifest, work, stop)
        if parameters.merge and not (directory / MERGED).is_dir():
            run_worker(_with_stage(work, "merge"), stop)
        for folder in (work.folder, work.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)
        assert manifest.result is not None
        return manifest.result.at(directory)


def _train(manifest: TrainingManifest, work: TrainingWork, stop: Stop | None) -> TrainingManifest:
    """Train from the last checkpoint on, and write the results; return the finished manifest."""
    last = last_checkpoint(work.checkpoints)
    cut_metrics(work.directory / METRICS, last.step if last else 0)
    work = work.model_copy(update={"resume": last.step if last else None})
    if last is None or not last.over:
        _log.info("%s", step_line(work.parameters))
        if work.parameters.processes > 1:  # one process reads the rows, so that the others do not wait for it
            run_worker(_with_stage(work, "prepare"), stop)
        run_worker(work, stop)
        last = last_checkpoint(work.checkpoints)
    prepared = read_prepared(work.folder)
    assert last is not None
    assert prepared is not None
    publish(work, last.best_step or last.step)
    metrics = read_metrics(work.directory / METRICS)
    result = _result(work, last, prepared, metrics)
    manifest = manifest.model_copy(update={"ended_at": now(), "result": result, "device": _device_and_savings(work)})
    write_card_and_plot(manifest, prepared, metrics, work.directory)
    manifest.write(work.directory)
    return manifest


def _device_and_savings(work: TrainingWork) -> dict[str, Any] | None:
    """Return the hardware of a run, with what was decided on it to save memory."""
    used, plan = used_device(work), read_plan(work)
    return used | plan.model_dump(exclude={"line"}) if used and plan and plan.line else used


def _result(
    work: TrainingWork, last: TrainingCheckpoint, prepared: PreparedRows, metrics: list[MetricsLine]
) -> Trained:
    """Return the results of a run.

    Args:
        work: The worker's job.
        last: The last checkpoint, which knows the best one.
        prepared: Counts of the rows.
        metrics: All lines of `metrics.jsonl`.
    """
    best = last.best_step or last.step
    losses = [line.loss for line in metrics if line.loss is not None]
    evaluated = [line.eval_loss for line in metrics if line.eval_loss is not None and line.step == best]
    return Trained(
        directory=work.directory,
        adapter=work.directory if work.parameters.use_lora else None,
        merged=None,
        steps=last.step,
        best_step=best,
        epochs=max((line.epoch for line in metrics), default=0.0),
        train_loss=sum(losses) / len(losses) if losses else 0.0,
        eval_loss=evaluated[-1] if evaluated else None,
        tokens=max((line.tokens for line in metrics), default=0),
        seconds=max((line.seconds for line in metrics), default=0.0),
        rows=prepared.train.rows,
        texts=prepared.train.texts,
        validation_rows=prepared.validation.rows,
        dropped=prepared.dropped,
        turns_left_out=prepared.turns_left_out,
        recorded_rows=prepared.recorded_rows,
        encoded_anew=prepared.encoded_anew,
        stops_added=prepared.stops_added,
    )


def _open(parameters: TrainLora, data: DataFiles, base: str, directory: Path) -> TrainingManifest:
    """Return the manifest of this run, and write it where the directory has none.

    A run that ended before its first checkpoint may be replaced by another. Raises `InputError` where the directory is
    another run's, or no run's.

    Args:
        parameters: The parameters as given.
        data: Files of training and validation data.
        base: The base model: an absolute path, or a hub id.
        directory: The run's directory, locked.
    """
    old = read_training_manifest(directory)
    begun = old is not None and (old.result is not None or bool(complete_checkpoints(directory / CHECKPOINTS)))
    # A run keeps the recipe that it was begun with: its first epochs were trained on the rows of that recipe.
    recipe = 1 if old is not None and begun and is_first_recipe(old) else RECIPE
    identity = training_identity(parameters, model_identity(base), data, recipe=recipe)
    new = TrainingManifest(
        identity_key=identity.key,
        identity=identity,
        parameters=parameters.model_dump(mode="json"),
        base=base,
        data={"train": file_facts(data.train), "validation": file_facts(data.validation)},
        versions=training_versions(),
        git_commit=git_commit(),
        host=host(),
        started_at=old.started_at if old else now(),
    )
    if old is not None:
        if begun:
            check_same_training(old, new, directory)
            if old.result is None and recipe != RECIPE and read_prepared(directory / WORK) is None:
                raise InputError(
                    f"{directory} was begun by an older version, and the rows that it prepared are missing: "
                    "give a new --output_dir"
                )
        elif old.identity != identity:
            shutil.rmtree(directory / WORK, ignore_errors=True)
        if old.result is not None:
            return old
    else:
        others = sorted(path.name for path in directory.iterdir() if path.name not in {LOCK, WORK, LOGS})
        if others:
            raise InputError(
                f"{directory} is not a training run's, and holds {', '.join(others[:3])}: give a new --output_dir"
            )
    new.write(directory)
    return new


def _work(parameters: TrainLora, data: DataFiles, base: str, directory: Path) -> TrainingWork:
    """Return the worker's job. Arguments as in `_open`.

    Args:
        parameters: The parameters as given.
        data: Files of training and validation data.
        base: The base model: an absolute path, or a hub id.
        directory: The run's directory.
    """
    return TrainingWork(
        stage="train",
        parameters=parameters,
        base=base,
        train=[file.path for file in data.train],
        validation=[file.path for file in data.validation],
        directory=directory.resolve(),
    )


def _with_stage(work: TrainingWork, stage: Stage) -> TrainingWork:
    return work.model_copy(update={"stage": stage})


def _resolve_base(model_path: str) -> str:
    """Return a model directory as an absolute path, or a hub id unchanged."""
    folder = Path(model_path).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if model_path.startswith((".", "/", "~")) or model_path.count("/") > 1:
        raise InputError(f"there is no model directory {model_path}: check --model_path")
    return model_path
