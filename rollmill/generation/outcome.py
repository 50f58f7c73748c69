"""What a run leaves when it is over: numbers, notes, files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict


class ArtifactKeys(NamedTuple):
    """The keys under which an orchestrator shows an outcome: lower case letters, digits and dashes."""

    table: str
    statistics: str
    picture: str
    files: str


class JobOutcome(BaseModel, ABC):
    """What a run of a generating job leaves. `files` has at least `statistics`."""

    model_config = ConfigDict(frozen=True)

    title: ClassVar[str]
    """What the job is called where its runs are shown."""
    artifact_key: ClassVar[str]

    name: str
    """The run's."""
    directory: Path
    made: int
    """Rollouts of this call; the others were journaled before."""
    table: list[dict[str, str]]
    """The run's numbers, as rows of text by column."""
    notes: list[str]
    """What a user should look at."""
    health: list[str] = []
    """The verdict on the run's rollouts as data; the first line says whether anything was found, each other one what.
    """

    @property
    @abstractmethod
    def files(self) -> dict[str, Path]:
        """Return the paths of what was written, each by what it is."""

    @property
    def picture(self) -> Path:
        """Return the picture of the run among `files`."""
        return self.files["picture"]

    def artifact_keys(self) -> ArtifactKeys:
        """Return the keys of the outcome's artifacts."""
        key = self.artifact_key
        return ArtifactKeys(key, f"{key}-statistics", f"{key}-overview", f"{key}-files")

    @abstractmethod
    def headline(self) -> str:
        """Return the run's numbers in one line."""

    def lines(self) -> list[str]:
        """Return what a user should read at the end of a call."""
        return [
            self.headline(),
            *([] if self.made else ["already complete, nothing was generated"]),
            *self.notes,
            *self.health,
            *(f"{what}: {path}" for what, path in self.files.items()),
        ]
