"""The parameters of collecting episodes: command line, form and deployment defaults in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, ValidationError, field_validator, model_validator

from rollmill.config.form import Form
from rollmill.config.names import ModelPath, NewPath
from rollmill.config.parameter import Parameters, parameter, redefine
from rollmill.environments.parameters import ENVIRONMENT, EnvironmentName
from rollmill.generation.concurrency import AS_FOUND, Concurrency
from rollmill.generation.parameters import (
    ConcurrencyParameters,
    ContextParameters,
    SamplingParameters,
    ServedJobParameters,
)
from rollmill.jobs.episodes.override_values import (
    PolicySpec,
    as_pairs,
    as_policies,
    check_name,
    expand_home,
    read_pairs,
    read_policy,
    read_settings,
)
from rollmill.jobs.episodes.tool_parameters import ToolParameters
from rollmill.jobs.training.parameters import Hyperparameters, TrainingInputs, TrainLora
from rollmill.problems.parameters import DatasetColumns, DatasetParameters, ProblemLimits

SFT_KEYS = tuple(
    name
    for name in (*Hyperparameters.model_fields, *TrainingInputs.model_fields)
    if name not in {"train_data", "output_dir"}  # the run's own
)
"""Parameters that `sft_config` may set."""


class EnvironmentParameters(Parameters):
    """The environment and its settings."""

    env_name: EnvironmentName = ENVIRONMENT
    env: list[str] = parameter(
        [], "Environment", "Settings", "Settings of the environment itself, as KEY=VALUE.", metavar="KEY=VALUE"
    )  # fmt: skip
    max_turns: int = parameter(3, "Environment", "Max turns", "Rounds over the agents in one episode.", ge=1, le=1000)


class PolicyParameters(Parameters):
    """The policies of the agents."""

    model_path: ModelPath | None = parameter(
        None, "Policies", "Model path",
        "Directory or hub id to serve, its name on running servers, or oracle or random; the policy of every agent.",
        metavar="PATH", env=True,
    )  # fmt: skip
    model_name: str = parameter("shared_model", "Policies", "Model name", "Name of that policy.", metavar="NAME")
    policy: list[str] = parameter(
        [], "Policies", "Further policies", metavar="NAME=MODEL[,KEY=VALUE...]",
        description="NAME=MODEL[,KEY=VALUE...]: MODEL as --model_path; keys: adapter (directory of a LoRA adapter on "
        "MODEL), base_url (servers that serve it), and those of sampling: temperature, top_p, max_tokens, top_k, ...",
    )  # fmt: skip
    agent: list[str] = parameter(
        [], "Policies", "Agents", "AGENT=POLICY: the policy of an agent; the other agents have --model_path's.",
        metavar="AGENT=POLICY",
    )  # fmt: skip


class RowParameters(Parameters):
    """The number of episodes, and the turns that become training rows."""

    total_rollouts: int = parameter(
        100, "Sampling", "Episodes", "Episodes of the whole run, spread over the problems in order; "
        "raising it later continues the run.", ge=1, aliases=("num_episodes",),
    )  # fmt: skip
    successful_only: bool = parameter(
        True, "Rows", "Only successful", "Keep only the turns of successful episodes.",
        aliases=("only_success",),
    )  # fmt: skip
    keep_agents: list[str] = parameter([], "Rows", "Agents kept", "Only turns of these agents.", metavar="AGENT")
    keep_truncated: bool = parameter(
        False,
        "Rows",
        "Keep truncated",
        "Also keep answers that were cut off; their rows are marked, and no end-of-turn token is trained on.",
    )
    balance_success: bool = parameter(
        False, "Rows", "Balance success", "As many episodes that failed as succeeded; needs --no_successful_only."
    )


class CollectEpisodes(
    Form,
    ConcurrencyParameters,
    ServedJobParameters,
    ToolParameters,
    ContextParameters,
    SamplingParameters,
    RowParameters,
    PolicyParameters,
    DatasetParameters,
    EnvironmentParameters,
):
    """Let agents play episodes in an environment, and write the turns of those that succeeded as training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    dataset: str | None = redefine(
        DatasetColumns,
        "dataset",
        None,
        description="Hub id, local directory, .jsonl/.json/.parquet file, or reasoning_gym:NAME; else the "
        "environment's own.",
    )
    max_problems: int | None = redefine(ProblemLimits, "max_problems", None, env=("MAX_PROBLEMS", "MAX_DATA"))
    temperature: float = redefine(SamplingParameters, "temperature", 1.0, env=True)
    max_tokens: int = redefine(
        SamplingParameters, "max_tokens", 1024, description="Longest answer of one turn, in tokens."
    )
    concurrency: Concurrency = redefine(
        ConcurrencyParameters,
        "concurrency",
        64,
        description=f"Episodes in flight, on every worker{AS_FOUND}.",
        env=True,
    )
    retry: Literal["failed"] | None = parameter(
        None, "Running", "Redo", "Of the run on disk, redo only the episodes that failed on the way."
    )
    output_dir: NewPath = parameter(
        "./sft_data", "Running", "Output directory", "The run, its sft_data_<time>.jsonl and _stats.json.",
        metavar="DIR",
    )  # fmt: skip

    run_sft_training: bool = parameter(
        False, "Training", "Train", "Then train --model_path's model on the rows, as flows.train_lora does."
    )
    sft_config: list[str] = parameter(
        [], "Training", "Training settings", "KEY=VALUE of flows.train_lora: num_train_epochs=1, lora_r=32, ...",
        metavar="KEY=VALUE",
    )  # fmt: skip
    sft_model_dir: NewPath = parameter(
        "./sft_model", "Training", "Model directory", "Directory of the trained model.", metavar="DIR"
    )

    @field_validator("env", "sft_config", "agent", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        return as_pairs(value)

    @field_validator("policy", mode="before")
    @classmethod
    def _policies(cls, value: Any) -> Any:
        return as_policies(value)

    @field_validator("keep_agents", mode="before")
    @classmethod
    def _wrap_in_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("model_name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        return check_name(name)

    @model_validator(mode="after")
    def _has_policies(self) -> Self:
        for flag, read in (("env", lambda: self.env_settings), ("agent", lambda: self.agent_policies),
                           ("policy", lambda: self.policies)):  # fmt: skip
            try:
                read()
            except ValueError as error:
                raise ValueError(f"--{flag}: {error}") from None
        if not self.policies:
            raise ValueError(
                "--model_path: required: the policy of the agents; or --policy (or set MODEL_PATH in the environment)"
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.balance_success and self.successful_only:
            raise ValueError("--balance_success: there are no failed episodes to keep: add --no_successful_only")
        return self

    @model_validator(mode="after")
    def _can_train(self) -> Self:
        try:
            self._training("rows.jsonl")
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            location = f"{first['loc'][0]}: {first['input']!r}: " if first["loc"] else ""
            raise ValueError(f"--sft_config: {location}{first['msg'].removeprefix('Value error, ')}") from None
        except ValueError as error:
            raise ValueError(f"--sft_config: {error}") from None
        if self.run_sft_training and self._trained is None:
            raise ValueError(
                "--run_sft_training: there is no model to train: give a directory or hub id as --model_path, or as "
                "--sft_config model_path=PATH"
            )
        return self

    @property
    def env_settings(self) -> dict[str, Any]:
        """The environment's settings by name, as its `Settings` takes them."""
        return read_settings(self.env)

    @property
    def agent_policies(self) -> dict[str, str]:
        """The policy of each agent that `agent` names."""
        return read_pairs(self.agent)

    @property
    def policies(self) -> list[PolicySpec]:
        """The policies, `model_path`'s first, with unique names."""
        default_policies = (
            []
            if self.model_path is None
            else [PolicySpec(self.model_name, expand_home(self.model_path), self.sampling_of_flags)]
        )
        specs = [*default_policies, *(read_policy(item, self.sampling_of_flags) for item in self.policy)]
        names = [spec.name for spec in specs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"there are two policies {twice!r}: give each another name")
        return specs

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return Path(self.output_dir)

    def training(self, train_data: str) -> TrainLora | None:
        """Return the training on the rows in a file; None without --run_sft_training."""
        return self._training(train_data) if self.run_sft_training else None

    @property
    def _trained(self) -> str | None:
        """The model to train: that of `sft_config`, else the first policy's that is a model; None for none."""
        configured = read_settings(self.sft_config).get("model_path")
        if configured:
            return str(configured)
        return next((spec.model for spec in self.policies if not spec.demonstration), None)

    def _training(self, train_data: str) -> TrainLora:
        settings = read_settings(self.sft_config, known=SFT_KEYS)
        decided = {"model_path": self._trained or "none", "train_data": [train_data], "output_dir": self.sft_model_dir}
        return TrainLora.model_validate(settings | decided)
