"""The parameters of the loop, and of the runs in each of its rounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ConfigDict, field_validator, model_validator

from rollmill.config.file_parameters import STORE_BLOCK
from rollmill.config.form import Form
from rollmill.config.names import ModelPath, NewPath
from rollmill.config.parameter import Parameters, parameter, redefine
from rollmill.errors import InputError
from rollmill.generation.parameters import RolloutCount, SamplingParameters
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.evaluation.parameters import EvaluationParameters, EvaluationPrompting
from rollmill.jobs.improvement.data_sources import describe_sources
from rollmill.jobs.training.parameters import Hyperparameters, TrainLora
from rollmill.problems.parameters import DatasetColumns, FewShotParameters, ProblemLimits

if TYPE_CHECKING:
    from rollmill.jobs.improvement.data_sources import DataSource, PlannedSource

ROLLOUTS = "rollouts"


class LoopParameters(Parameters):
    """Model, problems, selection and number of rounds."""

    model_path: ModelPath = parameter(
        ..., "Model", "Model", "Directory or hub id of the model to improve.", metavar="PATH", env=True,
    )  # fmt: skip
    dataset: str | None = redefine(
        DatasetColumns,
        "dataset",
        None,
        title="Problems",
        description="Problems to train on: hub id, directory or file; required without --feed.",
    )
    dataset_split: str = redefine(DatasetColumns, "dataset_split", "train")
    max_problems: int | None = redefine(ProblemLimits, "max_problems", None)
    feed: list[str] = parameter(
        [], "Problems", "Feeds", metavar="NAME=FILE",
        description=f"More rows for each round: {describe_sources()}.",
    )  # fmt: skip

    few_shot: str | None = redefine(
        FewShotParameters,
        "few_shot",
        None,
        description="Examples before the question in rollouts, not in training or evaluation.",
    )

    num_rollout: int = redefine(RolloutCount, "num_rollout", 4, description="Rollouts per problem and round.")
    temperature: float = redefine(
        SamplingParameters, "temperature", 0.8, description="Sampling temperature of rollouts.", gt=0, ge=None
    )
    top_p: float = redefine(SamplingParameters, "top_p", 1.0)

    at_most_k: int = parameter(
        1,
        "Selection",
        "Most of a problem",
        "Most right rollouts of one problem to train on, those that differ most, so that easy problems do not prevail.",
        ge=1,
    )
    near_duplicates: float | None = parameter(
        None, "Selection", "Near-duplicates", "Of right rollouts of a problem this similar (Jaccard), keep the first.",
        gt=0, le=1,
    )  # fmt: skip

    rounds: int = parameter(3, "Loop", "Rounds", "Most rounds.", ge=1, le=1000)
    train_from: Literal["policy", "base"] = parameter(
        "policy", "Loop", "Train from", "Each round trains the policy of the round before, or the base again."
    )
    output_dir: NewPath = parameter(
        "improved", "Output", "Output directory", "Directory of all files of the loop.", metavar="DIR"
    )
    store_block: str | None = STORE_BLOCK


class Improve(Form, Hyperparameters, EvaluationParameters, LoopParameters):
    """Rounds of rollouts, training and evaluation; a round is kept only if it is significantly better."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @field_validator("feed", mode="before")
    @classmethod
    def _wrap_in_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_problems(self) -> Self:
        if self.held_out is None:
            raise ValueError("--held_out: required: without held-out problems no improvement can be measured")
        if self.dataset is None and not self.feed:
            raise ValueError("--dataset: required where there is no --feed: there is nothing to train on")
        if self.dataset is None and self.few_shot:
            raise ValueError("--few_shot: goes with --dataset, which is not given: a feed's file has its own")
        if not self.feed:
            return self
        from rollmill.jobs.improvement.data_sources import (
            read_feeds,  # late: imports the parameters of all generating flows
        )

        try:
            read_feeds(self.feed, verifier=self.verifier)
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def accepted(self) -> Filters:
        """Filters for the rollouts that are trained on."""
        return Filters(
            drop_errors=["any"], drop_unparseable=True, successful_only=True, drop_empty=True, drop_duplicates=True,
            near_duplicates=self.near_duplicates,
        )  # fmt: skip

    @property
    def feeds(self) -> list[DataSource]:
        """The data sources of every round, `--dataset` first."""
        from rollmill.jobs.improvement.data_sources import read_feeds

        return [*self._dataset_source(), *read_feeds(self.feed, verifier=self.verifier)]

    def folder(self, number: int) -> Path:
        """Return the folder of a round; 0 for the base's evaluation."""
        return Path(self.output_dir) / (f"round_{number:02d}" if number else "base")

    def plan_sources(self, number: int, policy: str) -> tuple[PlannedSource, ...]:
        """Plan the data sources of a round, with seeds that differ from round to round."""
        from rollmill.jobs.improvement.data_sources import RoundContext

        shared = self.shared_with_rollouts()
        serving = {name: value for name, value in shared.items() if name not in EvaluationPrompting.model_fields}
        context = RoundContext(policy, self.folder(number), number, serving, self.concurrency)
        return tuple(feed.plan(context) for feed in self.feeds)

    def _dataset_source(self) -> Iterator[DataSource]:
        from rollmill.jobs.improvement.data_sources import DataSource

        if self.dataset is not None:
            shared = {"dataset_split", "max_problems", "few_shot", "num_rollout", "temperature", "top_p", "seed"}
            settings = {name: getattr(self, name) for name in ("dataset", *shared)}
            yield DataSource(ROLLOUTS, "reject_sampling", settings | self.shared_with_rollouts() | self._recommended())

    def training(self, number: int, start: str) -> TrainLora:
        """Return the training of a round on its rows; `start` is the model to train."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in Hyperparameters.model_fields}
        folder = self.folder(number)
        decided = {"model_path": start, "train_data": [str(folder / "training_data/sft.jsonl")], "merge": True}
        return TrainLora.model_validate(
            {**shared, **decided, "output_dir": str(folder / "adapter"), "seed": self.seed + number}
        )
