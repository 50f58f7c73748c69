"""A training run's manifest: what it is, and what came of it."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rollmill.errors import InputError, file_error
from rollmill.files.atomic import atomic_write_json
from rollmill.files.names import MANIFEST
from rollmill.files.regular import require_regular
from rollmill.generation.identity import Identity
from rollmill.generation.manifest import check_unaltered, check_writable
from rollmill.generation.run import short
from rollmill.jobs.training.data_files import DataFile, DataFiles
from rollmill.jobs.training.merging import MERGED
from rollmill.jobs.training.parameters import TrainLora
from rollmill.terminal.escapes import visible_line

RECIPE = 1
"""Raised when the same parameters and data come to train other weights."""
_NOT_THE_RUN = (
    *("model_path", "train_data", "validation_data", "output_dir"),
    *("merge", "save_steps", "num_gpus", "device"),
)
_SHOWN = ("model_path", "train_data", "validation_data")
_ADVICE = "give another --output_dir for another run, or the old value to continue this one"


class Trained(BaseModel):
    """What came of a run."""

    model_config = ConfigDict(frozen=True)

    directory: Path
    adapter: Path | None
    """The folder of the adapter: the run's; None where all weights were trained, and the folder holds a model."""
    merged: Path | None
    """The folder of the base with the adapter merged into it."""
    steps: int
    """Optimizer steps that were made."""
    best_step: int
    """The step whose weights these are: with validation data that of the least loss, else the last."""
    epochs: float
    train_loss: float
    """Mean over the steps."""
    eval_loss: float | None
    """Of these weights; None without validation data."""
    tokens: int
    seconds: float
    rows: int
    validation_rows: int
    dropped: dict[str, int]
    """Rows left out, by reason; each is in `dropped.jsonl`."""

    @property
    def files(self) -> dict[str, Path]:
        """What was written, by its name."""
        found = {path.name: path for path in sorted(self.directory.iterdir()) if path.is_file()}
        return found | ({MERGED: self.merged} if self.merged else {})

    def at(self, directory: Path) -> Trained:
        """The same with the paths as they are from here: directories are moved, and seen from several machines."""
        adapter = directory if self.adapter else None
        merged = directory / MERGED
        return self.model_copy(
            update={"directory": directory, "adapter": adapter, "merged": merged if merged.is_dir() else None}
        )


class TrainingManifest(BaseModel):
    """`manifest.json`."""

    model_config = ConfigDict(protected_namespaces=())

    schema_version: Literal[1] = 1
    job: Literal["train_lora"] = "train_lora"
    identity_key: str
    identity: Identity
    parameters: dict[str, Any]
    """As given."""
    base: str
    """The base model: an absolute path, or a hub id."""
    data: dict[str, list[dict[str, str]]]
    """`train` and `validation`: `path` and `sha256` of each file."""
    versions: dict[str, str]
    git_commit: str | None
    host: str
    device: dict[str, Any] | None = None
    """What it was trained on: `device`, `dtype` of the base's weights, `count`, and of GPUs `names` and `driver`."""
    started_at: str
    ended_at: str | None = None
    result: Trained | None = Field(default=None)

    @model_validator(mode="after")
    def _is_of_a_training(self) -> Self:
        if not isinstance(self.identity.generation.get("model_path"), str):
            raise ValueError("identity.generation has no text as model_path")
        check_writable(self)
        return self

    def write(self, directory: Path) -> None:
        """Writes it whole."""
        atomic_write_json(directory / MANIFEST, self.model_dump(mode="json"))


def training_identity(parameters: TrainLora, base_identity: str, data: DataFiles) -> Identity:
    """What determines the weights: base, data and hyperparameters; not where they go, nor how often they are saved."""
    hyperparameters = {
        name: value for name, value in parameters.model_dump(mode="json").items() if name not in _NOT_THE_RUN
    }
    return Identity(
        generation={
            "model_path": base_identity,
            "train_data": [file.sha256 for file in data.train],
            "validation_data": [file.sha256 for file in data.validation],
            **hyperparameters,
            "num_gpus": parameters.processes,
            "recipe": RECIPE,
        },
        verification={},
    )


def file_facts(files: list[DataFile]) -> list[dict[str, str]]:
    """As the manifest has them."""
    return [file._asdict() for file in files]


def read_training_manifest(directory: Path) -> TrainingManifest | None:
    """The manifest of a training run, None where there is none.

    Raises `InputError` when it cannot be read, or is another kind of run's.
    """
    path = directory / MANIFEST
    try:
        require_regular(path)
        return TrainingManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise file_error(error, path) or error from error
    except ValidationError as error:
        raise InputError(
            f"{path} is not the manifest of a training run that this version reads: give another --output_dir"
        ) from error


def check_same_training(old: TrainingManifest, new: TrainingManifest, directory: Path) -> None:
    """Raises `InputError`, naming each parameter that differs, unless `new` is the run on disk."""
    differences = old.identity.differences(new.identity)
    if not differences:
        check_unaltered(directory / MANIFEST, old.identity, old.identity_key)
        return
    told = []
    for name, (there, here) in differences.items():
        if name in _SHOWN:
            there, here = old.parameters.get(name), new.parameters.get(name)
        told.append(
            f"{visible_line(name)} ({short(here)}, whose content has changed)"
            if there == here
            else f"{visible_line(name)} ({short(there)} on disk, {short(here)} now)"
        )
    raise InputError(f"{directory} holds another run: {', '.join(told)}: {_ADVICE}")


def training_versions() -> dict[str, str]:
    """Versions of what determines weights."""
    found = {"python": platform.python_version()}
    for name in ("rollmill", "torch", "transformers", "trl", "peft", "accelerate"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
