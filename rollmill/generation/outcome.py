"""The outcome of a run: numbers, notes and result files."""

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
    """Outcome of a generating job's run. `files` has at least `statistics`."""

    model_config = ConfigDict(frozen=True)

    title: ClassVar[str]
    """The job's name in displays."""
    artifact_key: ClassVar[str]

    name: str
    """The run's name."""
    directory: Path
    made: int
    """Number of rollouts that this call made; the others were journaled before."""
    table: list[dict[str, str]]
    """The run's numbers as rows of text, each a mapping of column to cell."""
    notes: list[str]
    """Notes that the user should look at."""
    health: list[str] = []
    """Findings about the rollouts as training data: a summary line, then one line per finding."""

    @property
    @abstractmethod
    def files(self) -> dict[str, Path]:
        """Return the paths of the result files, by kind."""

    @property
    def picture(self) -> Path:
        """Return the path of the overview plot."""
        return self.files["picture"]

    def artifact_keys(self) -> ArtifactKeys:
        """Return the keys of the outcome's artifacts."""
        key = self.artifact_key
        return ArtifactKeys(key, f"{key}-statistics", f"{key}-overview", f"{key}-files")

    @abstractmethod
    def headline(self) -> str:
        """Return the run's numbers in one line."""

    def lines(self) -> list[str]:
        """Return the lines that are printed at the end of a call."""
        return [
            self.headline(),
            *([] if self.made else ["already complete, nothing was generated"]),
            *self.notes,
            *self.health,
            *(f"{kind}: {path}" for kind, path in self.files.items()),
        ]
