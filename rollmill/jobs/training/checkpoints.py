"""Checkpoints: whole, or not there."""

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
    """What a whole checkpoint says of itself. `best_step`: the checkpoint with the least loss in evaluation so far."""

    model_config = ConfigDict(frozen=True)

    step: int
    best_step: int | None = None
    over: bool = False
    """The run has reached its end, or was stopped early, here."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is, as transformers' trainer names it."""
    return folder / f"checkpoint-{step}"


def mark_complete(folder: Path, checkpoint: TrainingCheckpoint) -> None:
    """Mark that all files of a checkpoint are written; they are on disk (fsync) before that is said."""
    path = checkpoint_path(folder, checkpoint.step)
    for file in path.rglob("*"):
        if file.is_file():
            number = os.open(file, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
    atomic_write_json(path / _COMPLETE, checkpoint.model_dump())


def whole_checkpoints(folder: Path) -> list[TrainingCheckpoint]:
    """Return those that are whole, by step."""
    marks = [path / _COMPLETE for path in folder.glob("checkpoint-*")]
    checkpoints = [TrainingCheckpoint.model_validate_json(mark.read_bytes()) for mark in marks if mark.exists()]
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)


def keep_checkpoints(folder: Path, steps: Set[int]) -> None:
    """Remove all others, those that are not whole included."""
    whole = {checkpoint.step for checkpoint in whole_checkpoints(folder)} & steps
    kept = {checkpoint_path(folder, step) for step in whole}
    for path in folder.glob("checkpoint-*"):
        if path not in kept:
            (path / _COMPLETE).unlink(missing_ok=True)  # what is half removed is not whole
            shutil.rmtree(path)


def last_checkpoint(folder: Path) -> TrainingCheckpoint | None:
    """Return where to go on. What is not whole, and what is neither last nor best, is removed."""
    whole = whole_checkpoints(folder)
    last = whole[-1] if whole else None
    keep_checkpoints(folder, {last.step, last.best_step or last.step} if last else set())
    return last
