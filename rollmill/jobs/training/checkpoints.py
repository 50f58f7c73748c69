"""Checkpoints of a run, each with a mark that tells that all its files are on disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Set
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rollmill.files.atomic import atomic_write_json

CHECKPOINTS = "checkpoints"
_COMPLETE = "complete.json"


class TrainingCheckpoint(BaseModel):
    """Mark of a complete checkpoint. `best_step`: the checkpoint with the least loss in evaluation so far."""

    model_config = ConfigDict(frozen=True)

    step: int
    best_step: int | None = None
    over: bool = False
    """The run ended at this checkpoint: with its last step, or by early stopping."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint, as transformers' trainer names it."""
    return folder / f"checkpoint-{step}"


def mark_complete(folder: Path, checkpoint: TrainingCheckpoint) -> None:
    """Mark a checkpoint as complete, after an fsync of all its files."""
    path = checkpoint_path(folder, checkpoint.step)
    for file in path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    atomic_write_json(path / _COMPLETE, checkpoint.model_dump())


def complete_checkpoints(folder: Path) -> list[TrainingCheckpoint]:
    """Return the complete checkpoints in a folder, by step."""
    marks = [path / _COMPLETE for path in folder.glob("checkpoint-*")]
    checkpoints = [TrainingCheckpoint.model_validate_json(mark.read_bytes()) for mark in marks if mark.exists()]
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)


def keep_checkpoints(folder: Path, steps: Set[int]) -> None:
    """Remove all checkpoints but the complete ones of these steps."""
    complete = {checkpoint.step for checkpoint in complete_checkpoints(folder)} & steps
    kept = {checkpoint_path(folder, step) for step in complete}
    for path in folder.glob("checkpoint-*"):
        if path not in kept:
            (path / _COMPLETE).unlink(missing_ok=True)  # first: a half removed checkpoint is not complete
            shutil.rmtree(path)


def last_checkpoint(folder: Path) -> TrainingCheckpoint | None:
    """Return the last complete checkpoint, to resume from; None to begin. Removes all but the last and the best."""
    complete = complete_checkpoints(folder)
    last = complete[-1] if complete else None
    keep_checkpoints(folder, {last.step, last.best_step or last.step} if last else set())
    return last
