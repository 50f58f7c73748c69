"""The work file that a run hands to its worker process, and the outcome that the worker writes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rollmill.files.atomic import atomic_write_bytes
from rollmill.jobs.training.checkpoints import CHECKPOINTS
from rollmill.jobs.training.parameters import TrainLora

Stage = Literal["prepare", "train", "merge"]
CONFIG = "config.json"
LOGS = "logs"
WORK = ".work"
"""Folder of a run's files that are not needed once it is finished."""


class TrainingWork(BaseModel):
    """One job for a worker: a stage of a run."""

    model_config = ConfigDict(frozen=True)

    stage: Stage
    parameters: TrainLora
    base: str
    """The base model: an absolute path, or a hub id."""
    train: list[str]
    validation: list[str]
    directory: Path
    """The run's directory, absolute."""
    resume: int | None = None
    """Step of the checkpoint to resume from; None to begin."""

    @property
    def folder(self) -> Path:
        """The run's folder of temporary files."""
        return self.directory / WORK

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.directory / CHECKPOINTS

    @property
    def spec(self) -> Path:
        """The work file."""
        return self.folder / "work.json"

    @property
    def lock(self) -> Path:
        """The file that a worker locks for as long as it lives."""
        return self.directory / LOGS / ".worker"

    @property
    def device(self) -> Path:
        """The file to which the worker writes its device."""
        return self.folder / "device.json"

    @property
    def memory(self) -> Path:
        """The file of the decision on what saves memory."""
        return self.folder / "memory.json"

    @property
    def outcome(self) -> Path:
        """The file to which the worker writes its outcome."""
        return self.folder / "outcome.json"

    def write(self) -> None:
        """Write the work file, and remove an earlier outcome."""
        self.outcome.unlink(missing_ok=True)
        if self.stage != "merge":  # merging chooses no device: the manifest keeps the one of the training
            self.device.unlink(missing_ok=True)
        atomic_write_bytes(self.spec, self.model_dump_json().encode())


class TrainingOutcome(BaseModel):
    """The outcome of a worker: `error` is a message for the user, None where it succeeded."""

    model_config = ConfigDict(frozen=True)

    error: str | None = None


def read_outcome(path: Path) -> TrainingOutcome | None:
    """Return the worker's outcome; None where it ended without writing one."""
    return TrainingOutcome.model_validate_json(path.read_bytes()) if path.exists() else None
