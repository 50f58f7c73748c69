"""The parameters of a training run: command line, form and deployment defaults in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, field_validator, model_validator

from rollmill.config.names import ModelPath, NewPath
from rollmill.config.parameter import Parameters, parameter
from rollmill.files.remote import is_remote

Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup"]
ALL_LINEAR = "all-linear"


class TrainingInputs(Parameters):
    """Model, data and output directory of a training run."""

    model_path: ModelPath = parameter(
        ..., "Model", "Base model", "Directory or hub id of the model that is trained.", metavar="PATH", env=True,
    )  # fmt: skip

    train_data: list[str] = parameter(
        ..., "Data", "Training data",
        "JSON Lines of messages, or of prompt and completion; an export's folder; or rollouts, as curation reads them.",
        metavar="PATH", min_length=1,
    )  # fmt: skip
    validation_data: list[str] = parameter(
        [], "Data", "Validation data", "Files of the same kind to evaluate on; a folder's own are found.",
        metavar="PATH",
    )  # fmt: skip
    validation_share: float = parameter(
        0.0, "Data", "Validation share", "Share of the training problems to evaluate on instead.", ge=0, lt=1
    )  # fmt: skip
    output_dir: NewPath = parameter(
        ..., "Output", "Output directory", "Where the adapter and all that belongs to it goes.", metavar="DIR"
    )  # fmt: skip
    merge: bool = parameter(
        False, "Output", "Merge", "Also write the base with the adapter merged into it, to merged/."
    )  # fmt: skip


class Hyperparameters(Parameters):
    """Hyperparameters, evaluation and hardware of a training run."""

    num_train_epochs: int = parameter(3, "Training", "Epochs", "Number of times that each row is seen.", ge=1)
    max_steps: int | None = parameter(
        None, "Training", "Most steps", "End after so many optimizer steps, if the epochs have not ended before.", ge=1
    )  # fmt: skip
    per_device_train_batch_size: int = parameter(
        2, "Training", "Batch size", "Rows (packs of rows with --packing) at a time on each device.", ge=1
    )  # fmt: skip
    gradient_accumulation_steps: int = parameter(
        8, "Training", "Gradient accumulation", "Batches of each device per optimizer step.", ge=1
    )  # fmt: skip
    learning_rate: float = parameter(5e-5, "Training", "Learning rate", "The highest learning rate.", gt=0, le=1)
    lr_scheduler: Schedule = parameter("cosine", "Training", "Schedule", "Schedule by which the learning rate decays.")
    warmup_ratio: float = parameter(
        0.03, "Training", "Warm-up", "Share of the steps in which the learning rate rises.", ge=0, lt=1
    )  # fmt: skip
    group_by_length: bool = parameter(
        True, "Training", "Group by length", "Put rows of similar length into one batch, so that less is padded."
    )  # fmt: skip
    packing: bool = parameter(
        False, "Training", "Packing", "Pack several rows into one of --max_length tokens; they do not see each other."
    )  # fmt: skip
    max_length: int = parameter(
        2048, "Training", "Longest row", "Rows of more tokens are left out, and counted; none is cut.",
        metavar="TOKENS", ge=2,
    )  # fmt: skip
    allow_no_end: bool = parameter(
        False, "Training", "Allow no end", "Train although no turn of the data ends with an end-of-turn token."
    )  # fmt: skip
    gradient_checkpointing: bool | None = parameter(
        None, "Training", "Gradient checkpointing",
        "Less memory, about a third slower; without: on a GPU where memory is short by an estimate.",
    )  # fmt: skip
    load_in_4bit: bool | None = parameter(
        None, "Training", "4-bit weights",
        "The base's weights in 4 bits (bitsandbytes), for an adapter on a GPU; without: where memory is short all the "
        "same, and bitsandbytes is installed.",
    )  # fmt: skip
    seed: int = parameter(0, "Training", "Seed", "Decides the first weights, the order of rows, and dropout.", ge=0)

    use_lora: bool = parameter(True, "LoRA", "LoRA", "Train an adapter; without, all weights of the model.")
    lora_r: int = parameter(64, "LoRA", "Rank", "Rank of the adapter's matrices.", ge=1, le=4096)
    lora_alpha: int = parameter(16, "LoRA", "Alpha", "The adapter is scaled by alpha over rank.", ge=1)
    lora_dropout: float = parameter(0.05, "LoRA", "Dropout", "Dropout before the adapter.", ge=0, lt=1)
    target_modules: list[str] = parameter(
        [ALL_LINEAR], "LoRA", "Target modules", "Names of the layers that get an adapter; all-linear for all.",
        min_length=1, metavar="NAME",
    )  # fmt: skip

    eval_steps: int | None = parameter(
        None, "Evaluation", "Evaluation steps", "Evaluate every so many steps, and at the end of each epoch.", ge=1
    )  # fmt: skip
    early_stopping_patience: int | None = parameter(
        None, "Evaluation", "Patience", "Stop after so many evaluations in a row without a lower loss.", ge=1
    )  # fmt: skip
    save_steps: int | None = parameter(
        None, "Evaluation", "Checkpoint steps", "Keep a checkpoint every so many steps, and at each epoch's end.", ge=1
    )  # fmt: skip

    num_gpus: int = parameter(
        1, "Hardware", "GPUs",
        "GPUs to train on, each on its own rows: a step has so many times the rows of one. With 0, and on a machine "
        "without one, the CPU trains.", ge=0, le=64,
    )  # fmt: skip
    device: Literal["auto", "cpu", "cuda"] = parameter(
        "auto", "Hardware", "Device",
        "auto: a GPU where there is one, and an error where torch cannot use it; cpu: the CPU all the same.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _has_a_device(self) -> Self:
        if self.device == "cpu" and self.num_gpus > 1:
            raise ValueError(f"--device cpu: one process trains there: leave out --num_gpus {self.num_gpus}")
        if self.device == "cuda" and self.num_gpus == 0:
            raise ValueError("--device cuda: --num_gpus 0 asks for the CPU: give 1 or more")
        return self


class TrainLora(Hyperparameters, TrainingInputs):
    """Train a LoRA adapter on conversations; the loss is on the assistant's turns only."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @field_validator("train_data", "validation_data", "target_modules", mode="before")
    @classmethod
    def _wrap_in_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.validation_data and self.validation_share:
            raise ValueError("give --validation_data or --validation_share, not both")
        if self.load_in_4bit and not self.use_lora:
            raise ValueError("--load_in_4bit: weights of 4 bits are not trained themselves: give --use_lora")
        if self.load_in_4bit and (self.device == "cpu" or self.num_gpus == 0):
            raise ValueError(
                "--load_in_4bit: bitsandbytes trains on NVIDIA GPUs, and this run is on the CPU: leave it out"
            )
        if self.merge and not self.use_lora:
            raise ValueError("--merge has nothing to merge without --use_lora")
        if self.use_lora and "lm_head" in self.target_modules:
            raise ValueError("--target_modules: an adapter on lm_head is never trained by TRL: leave it out")
        if ALL_LINEAR in self.target_modules and len(self.target_modules) > 1:
            raise ValueError(f"--target_modules: {ALL_LINEAR} cannot be combined with names of layers")
        return self

    def with_absolute_paths(self) -> TrainLora:
        """Return the parameters with absolute paths, for a process with another current directory."""
        paths = {name: [_absolute(path) for path in getattr(self, name)] for name in ("train_data", "validation_data")}
        model = Path(self.model_path).expanduser()
        return self.model_copy(
            update={
                **paths,
                "output_dir": _absolute(self.output_dir),
                "model_path": str(model.absolute()) if model.is_dir() else self.model_path,
            }
        )

    @property
    def step_rows(self) -> int:
        """Rows (packs with `packing`) of an optimizer step, on all devices together."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.processes

    @property
    def processes(self) -> int:
        """Number of training processes: one per GPU, one on the CPU."""
        return max(1, self.num_gpus)


def _absolute(path: str) -> str:
    return path if is_remote(path) else str(Path(path).absolute())
