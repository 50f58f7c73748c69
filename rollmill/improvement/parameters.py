"""The parameters of the loop, and the runs that each of its rounds consists of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from rollmill.curation.filters import Filters
from rollmill.evaluation.parameters import Evaluating
from rollmill.parameter import parameter
from rollmill.rejection.parameters import RejectSampling
from rollmill.training.parameters import Hyperparameters, TrainLora

ROLLOUTS = "rollouts"


class Looping(BaseModel):
    """What is made better, on what problems, and for how long."""

    model_path: str = parameter(
        ..., "Model", "Model", "Directory or hub id of the model to improve.", metavar="PATH", env=True
    )
    dataset: str = parameter(..., "Problems", "Problems", "Problems to learn from: hub id, directory or file.")
    dataset_split: str = parameter("train", "Problems", "Split", "Split of a hub or directory data set.")
    max_data: int | None = parameter(None, "Problems", "Max data", "Only the first so many problems.", ge=1)

    few_shot: str | None = parameter(
        None, "Prompt", "Few-shot examples", "Examples before the question in rollouts, not in training or evaluation.",
        metavar="FILE",
    )  # fmt: skip

    num_rollout: int = parameter(
        4, "Sampling", "Rollouts per problem", "Rollouts per problem and round.", ge=1, le=65536
    )
    temperature: float = parameter(0.8, "Sampling", "Temperature", "Sampling temperature of rollouts.", gt=0, le=10)
    top_p: float = parameter(1.0, "Sampling", "Top p", "Nucleus of the sampling.", gt=0, le=1)

    at_most_k: int = parameter(
        1,
        "Selection",
        "Most of a problem",
        "Right rollouts of one problem to train on: easy ones shall not take over.",
        ge=1,
    )
    near_duplicates: float | None = parameter(
        None, "Selection", "Near-duplicates", "Of right rollouts of a problem this similar (Jaccard), keep the first.",
        gt=0, le=1,
    )  # fmt: skip

    rounds: int = parameter(3, "Loop", "Rounds", "Most rounds.", ge=1, le=1000)
    train_from: Literal["policy", "base"] = parameter(
        "policy", "Loop", "Train from", "Each round trains the policy of the round before, or the base anew."
    )
    output_dir: str = parameter(
        "improved", "Output", "Output directory", "Everything is written in here.", metavar="DIR"
    )


class Improve(Hyperparameters, Evaluating, Looping):
    """Rounds of rollouts, training and evaluation; a round is kept only where it is better beyond noise."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="after")
    def _has_held_out(self) -> Self:
        if self.held_out is None:
            raise ValueError("--held_out: required: without held-out problems nobody can tell whether it got better")
        return self

    @property
    def accepted(self) -> Filters:
        """Which rollouts are trained on."""
        return Filters(
            drop_errors=["any"], drop_unparseable=True, successful_only=True, drop_empty=True, drop_duplicates=True,
            near_duplicates=self.near_duplicates, at_most_k=self.at_most_k,
        )  # fmt: skip

    def folder(self, number: int) -> Path:
        """Where a round's data, adapter and numbers are kept; 0 is the base's evaluation."""
        return Path(self.output_dir) / (f"round_{number:02d}" if number else "base")

    def generation(self, number: int, policy: str) -> RejectSampling:
        """The rollouts of a round; other ones in each."""
        own = {
            "model_path": [policy],
            "model_name": [ROLLOUTS],
            "dataset": self.dataset,
            "dataset_split": self.dataset_split,
            "max_data": self.max_data,
            "few_shot": self.few_shot,
            "num_rollout": self.num_rollout,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed + number,
            "concurrency": max(1, self.slots // self.num_rollout),
            "output_dir": str(self.folder(number)),
        }
        return RejectSampling.model_validate(own | self.asking())

    def training(self, number: int, start: str) -> TrainLora:
        """The training of a round, from `start`, on its rows."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in Hyperparameters.model_fields}
        folder = self.folder(number)
        own = {"model_path": start, "train_data": [str(folder / "training_data/sft.jsonl")], "merge": True}
        return TrainLora.model_validate(
            {**shared, **own, "output_dir": str(folder / "adapter"), "seed": self.seed + number}
        )
