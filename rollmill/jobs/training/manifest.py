"""Manifest of a training run: its identity, parameters and result."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rollmill.errors import InputError, file_error
from rollmill.files.atomic import atomic_write_json
from rollmill.files.names import MANIFEST
from rollmill.files.regular import require_regular
from rollmill.generation.identity import Identity
from rollmill.generation.manifest import check_unaltered, check_writable
from rollmill.generation.run import short
from rollmill.jobs.training.merging import MERGED
from rollmill.jobs.training.parameters import TrainLora
from rollmill.terminal.escapes import visible_line

if TYPE_CHECKING:
    from rollmill.jobs.training.data_files import DataFile, DataFiles  # imports Polars, which q* sampling does not need

RECIPE = 2
"""Raised when a change makes the same parameters and data train other weights."""
_FIRST_RECIPE = 1
"""Recipe of runs begun before each turn was trained on behind its own prompt: they continue with rows prepared then."""
_NOT_IN_IDENTITY = (
    *("model_path", "train_data", "validation_data", "output_dir"),
    *("merge", "save_steps", "num_gpus", "device", "allow_no_end", "gradient_checkpointing", "load_in_4bit"),
)
_SHOWN = ("model_path", "train_data", "validation_data")
_ADVICE = "give another --output_dir for another run, or the old value to continue this one"


class Trained(BaseModel):
    """The result of a run."""

    model_config = ConfigDict(frozen=True)

    directory: Path
    adapter: Path | None
    """The folder of the adapter, which is the run's; None where all weights were trained: the folder has a model."""
    merged: Path | None
    """The folder of the base with the adapter merged into it."""
    steps: int
    """Optimizer steps."""
    best_step: int
    """The step of these weights: with validation data the one with the least loss, else the last."""
    epochs: float
    train_loss: float
    """Mean over the steps."""
    eval_loss: float | None
    """Loss of these weights on the validation data; None without."""
    tokens: int
    seconds: float
    rows: int
    texts: int = 0
    """Training texts of the rows; 0 where an older version did not count them."""
    validation_rows: int
    dropped: dict[str, int]
    """Rows left out, by reason; each is in `dropped.jsonl`."""
    turns_left_out: dict[str, int] = {}
    """Turns left out of rows that are used, by reason; each is in `dropped.jsonl`."""
    recorded_rows: int = 0
    """Number of rows that were trained on the ids that were sampled."""
    encoded_anew: dict[str, int] = {}
    """Number of rows whose text was encoded, by the reason why recorded ids were not used."""
    stops_added: list[str] = []
    """End-of-turn tokens that carry the loss and at which the base did not stop: added to `generation_config.json`."""

    @property
    def files(self) -> dict[str, Path]:
        """The files that were written, by name."""
        files = {path.name: path for path in sorted(self.directory.iterdir()) if path.is_file()}
        return files | ({MERGED: self.merged} if self.merged else {})

    def at(self, directory: Path) -> Trained:
        """Return the result with paths under another directory: directories are moved, and mounted elsewhere."""
        adapter = directory if self.adapter else None
        merged = directory / MERGED
        return self.model_copy(
            update={"directory": directory, "adapter": adapter, "merged": merged if merged.is_dir() else None}
        )


class TrainingManifest(BaseModel):
    """`manifest.json` of a training run."""

    model_config = ConfigDict(protected_namespaces=())

    schema_version: Literal[1] = 1
    job: Literal["train_lora"] = "train_lora"
    identity_key: str
    identity: Identity
    parameters: dict[str, Any]
    """Parameters as given."""
    base: str
    """The base model: an absolute path, or a hub id."""
    data: dict[str, list[dict[str, str]]]
    """`train` and `validation`: `path` and `sha256` of each file."""
    versions: dict[str, str]
    git_commit: str | None
    host: str
    device: dict[str, Any] | None = None
    """The hardware: `device`, `dtype` of the base's weights, `count`, and of GPUs `names` and `driver`.

    Where memory was estimated, also `gradient_checkpointing` and `load_in_4bit`, as they were decided.
    """
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
        """Write the manifest into the run's directory, complete or not at all."""
        atomic_write_json(directory / MANIFEST, self.model_dump(mode="json"))


def training_identity(parameters: TrainLora, base_identity: str, data: DataFiles, *, recipe: int = RECIPE) -> Identity:
    """Return the identity of a run, which is what determines the weights: base, data and hyperparameters.

    The output directory, and how often checkpoints are saved, are not part of it.

    Args:
        parameters: The parameters as given.
        base_identity: Identity of the base model, by its content.
        data: Files with their hashes.
        recipe: Number of the recipe.
    """
    hyperparameters = {
        name: value for name, value in parameters.model_dump(mode="json").items() if name not in _NOT_IN_IDENTITY
    }
    return Identity(
        generation={
            "model_path": base_identity,
            "train_data": [file.sha256 for file in data.train],
            "validation_data": [file.sha256 for file in data.validation],
            **hyperparameters,
            # What is not asked for is decided by the machine's memory, and kept in the run's folder.
            "gradient_checkpointing": bool(parameters.gradient_checkpointing),
            **({"load_in_4bit": True} if parameters.load_in_4bit else {}),
            "num_gpus": parameters.processes,
            "recipe": recipe,
        },
        verification={},
    )


def is_first_recipe(manifest: TrainingManifest) -> bool:
    """Return whether a run was begun with the first recipe."""
    return manifest.identity.generation.get("recipe") == _FIRST_RECIPE


def file_facts(files: list[DataFile]) -> list[dict[str, str]]:
    """Return path and hash of each file, as the manifest has them."""
    return [file._asdict() for file in files]


def read_training_manifest(directory: Path) -> TrainingManifest | None:
    """Return the manifest of a training run, None where there is none.

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
    """Raise `InputError`, naming each parameter that differs, unless `new` is the run on disk."""
    differences = old.identity.differences(new.identity)
    if not differences:
        check_unaltered(directory / MANIFEST, old.identity, old.identity_key)
        return
    differing = []
    for name, (old_value, new_value) in differences.items():
        if name in _SHOWN:
            old_value, new_value = old.parameters.get(name), new.parameters.get(name)
        differing.append(
            f"{visible_line(name)} ({short(new_value)}, whose content has changed)"
            if old_value == new_value
            else f"{visible_line(name)} ({short(old_value)} on disk, {short(new_value)} now)"
        )
    raise InputError(f"{directory} holds another run: {', '.join(differing)}: {_ADVICE}")


def training_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that determine the weights."""
    versions = {"python": platform.python_version()}
    for name in ("rollmill", "torch", "transformers", "trl", "peft", "accelerate"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
