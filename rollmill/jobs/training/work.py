"""What the owner of a run hands to its worker process, and what that hands back."""

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
"""Everything of a run that is not needed once it is finished."""


class TrainingWork(BaseModel):
    """One job for a worker."""

    model_config = ConfigDict(frozen=True)

    stage: Stage
    parameters: TrainLora
    base: str
    """The base model: an absolute path, or a hub id."""
    train: list[str]
    validation: list[str]
    directory: Path
    """The run's."""
    resume: int | None = None
    """The step of the checkpoint to go on from."""

    @property
    def folder(self) -> Path:
        """The run's folder for what it needs while it runs."""
        return self.directory / WORK

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.directory / CHECKPOINTS

    @property
    def spec(self) -> Path:
        """Where it is written down."""
        return self.folder / "work.json"

    @property
    def lock(self) -> Path:
        """What a worker holds as long as it lives."""
        return self.directory / LOGS / ".worker"

    @property
    def device(self) -> Path:
        """Where the worker writes what it trains on."""
        return self.folder / "device.json"

    @property
    def outcome(self) -> Path:
        """Where the worker writes how it ended."""
        return self.folder / "outcome.json"

    def write(self) -> None:
        """Write it down; an earlier outcome is removed."""
        self.outcome.unlink(missing_ok=True)
        if self.stage != "merge":
            self.device.unlink(missing_ok=True)
        atomic_write_bytes(self.spec, self.model_dump_json().encode())


class TrainingOutcome(BaseModel):
    """How a worker ended: `error` is a message for the user, None where all went well."""

    model_config = ConfigDict(frozen=True)

    error: str | None = None


def read_outcome(path: Path) -> TrainingOutcome | None:
    """Return the worker's outcome; None where it ended without a word."""
    return TrainingOutcome.model_validate_json(path.read_bytes()) if path.exists() else None
