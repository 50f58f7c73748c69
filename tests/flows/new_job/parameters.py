"""The first of the three files of a new generating job: its parameters."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict

from rollmill.config.form import Form
from rollmill.config.names import NewPath
from rollmill.config.parameter import parameter, redefine
from rollmill.generation.parameters import (
    ConcurrencyParameters,
    RolloutCount,
    SamplingParameters,
    ServedJobParameters,
)
from rollmill.problems.parameters import DatasetColumns, DatasetParameters


class Paraphrase(Form, ConcurrencyParameters, ServedJobParameters, SamplingParameters, RolloutCount, DatasetParameters):
    """Let a model paraphrase every question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = redefine(DatasetColumns, "dataset", ...)
    model: str = parameter(..., "Model", "Model", "The model's name on the servers.")
    output_dir: NewPath = parameter("paraphrases", "Running", "Output directory", "The run's directory.")

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return Path(self.output_dir)
