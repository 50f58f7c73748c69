"""The parameters of collecting episodes: command line, form and deployment defaults in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, ValidationError, field_validator, model_validator

from rollmill.config.file_parameters import STORE_BLOCK, image_folders_field
from rollmill.config.form import Form
from rollmill.config.names import ModelPath, NewPath
from rollmill.config.parameter import Parameters, parameter
from rollmill.generation.parameters import CLUSTER_BLOCK, GPU_WORKERS, check_places
from rollmill.generation.sampling import Sampling
from rollmill.jobs.episodes.override_values import (
    PolicySpec,
    as_pairs,
    as_policies,
    check_name,
    home,
    read_pairs,
    read_policy,
    read_settings,
)
from rollmill.jobs.episodes.shared_parameters import Outside
from rollmill.jobs.training.parameters import Hyperparameters, Material, TrainLora
from rollmill.problems import ProblemSource

SFT_KEYS = tuple(
    name
    for name in (*Hyperparameters.model_fields, *Material.model_fields)
    if name not in {"train_data", "output_dir"}  # the run's own
)
"""What `sft_config` may set."""


class Playing(Parameters):
    """What is played, on what problems, by whom."""

    env_name: str = parameter(
        "code_env", "Environment", "Environment",
        "code_env, math_env, search_env, stateful_env, or a class of your own as package.module:Name.", metavar="NAME",
    )  # fmt: skip
    env: list[str] = parameter(
        [], "Environment", "Settings", "Settings of the environment itself, as KEY=VALUE.", metavar="KEY=VALUE"
    )  # fmt: skip
    max_turns: int = parameter(3, "Environment", "Max turns", "Rounds over the agents in one episode.", ge=1, le=1000)

    dataset: str | None = parameter(
        None, "Problems", "Data set",
        "Hub id, local directory, .jsonl/.json/.parquet file, or reasoning_gym:NAME; else the environment's own.",
    )  # fmt: skip
    split: str = parameter("train", "Problems", "Split", "Split of a hub or directory data set.")
    prompt_field: str | None = parameter(
        None, "Problems", "Prompt field", "Column of the question; found when obvious.", metavar="COLUMN"
    )
    answer_field: str | None = parameter(
        None, "Problems", "Answer field", "Column of the ground truth; dots reach into nested columns.",
        metavar="COLUMN",
    )  # fmt: skip
    id_field: str | None = parameter(
        None, "Problems", "Id field", "Column of the problems' ids; else the row number.", metavar="COLUMN"
    )
    image_folders: list[str] = image_folders_field("Problems")
    max_data: int | None = parameter(None, "Problems", "Max data", "Only the first so many problems.", env=True, ge=1)
    max_bad_share: float = parameter(
        0.1, "Problems", "Largest share of bad rows", "Stop when more than this share of the rows is unusable.",
        ge=0, le=1,
    )  # fmt: skip

    model_path: ModelPath | None = parameter(
        None, "Policies", "Model path",
        "Directory or hub id to serve, its name on servers that run, or oracle or random; plays every agent.",
        metavar="PATH", env=True,
    )  # fmt: skip
    model_name: str = parameter("shared_model", "Policies", "Model name", "Name of that policy.", metavar="NAME")
    policy: list[str] = parameter(
        [], "Policies", "Further policies", metavar="NAME=MODEL[,KEY=VALUE...]",
        description="NAME=MODEL[,KEY=VALUE...]: MODEL as --model_path; keys: adapter (directory of a LoRA adapter on "
        "MODEL), base_url (servers that serve it), temperature, top_p, max_tokens.",
    )  # fmt: skip
    agent: list[str] = parameter(
        [], "Policies", "Agents", "AGENT=POLICY: which policy plays an agent; the others are played by --model_path's.",
        metavar="AGENT=POLICY",
    )  # fmt: skip

    num_episodes: int = parameter(
        100, "Sampling", "Episodes", "Episodes of the whole run, spread over the problems in order; "
        "raising it later continues the run.", ge=1,
    )  # fmt: skip
    temperature: float = parameter(1.0, "Sampling", "Temperature", "Sampling temperature.", env=True, ge=0, le=10)
    top_p: float = parameter(1.0, "Sampling", "Top p", "Nucleus of the sampling.", gt=0, le=1)
    max_tokens: int = parameter(1024, "Sampling", "Max tokens", "Longest answer of one turn, in tokens.", ge=1)
    seed: int = parameter(0, "Sampling", "Seed", "Seed of the run; every episode's own seed follows from it.", ge=0)

    only_success: bool = parameter(
        True, "Rows", "Only success", "Keep only the turns of episodes that ended in success."
    )
    keep_agents: list[str] = parameter([], "Rows", "Agents kept", "Only turns of these agents.", metavar="AGENT")
    balance_success: bool = parameter(
        False, "Rows", "Balance success", "As many episodes that failed as succeeded; needs --no_only_success."
    )


class CollectEpisodes(Form, Outside, Playing):
    """Let agents play episodes in an environment, and write the turns of those that succeeded as training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    concurrency: int = parameter(
        64, "Running", "Concurrency", "Episodes in flight, on every worker.", env=True, ge=1, le=65536
    )
    cluster_block: str | None = CLUSTER_BLOCK
    gpu_workers: int | None = GPU_WORKERS
    retry: Literal["failed"] | None = parameter(
        None, "Running", "Redo", "Of the run on disk, redo only the episodes that failed on the way."
    )
    output_dir: NewPath = parameter(
        "./sft_data", "Running", "Output directory", "The run, its sft_data_<time>.jsonl and _stats.json.",
        metavar="DIR",
    )  # fmt: skip
    log_dir: NewPath = parameter("logs", "Running", "Log directory", "Where vLLM's log goes.", metavar="DIR")
    store_block: str | None = STORE_BLOCK

    run_sft_training: bool = parameter(
        False, "Training", "Train", "Then train --model_path's model on the rows, as flows.train_lora does."
    )
    sft_config: list[str] = parameter(
        [], "Training", "Training settings", "KEY=VALUE of flows.train_lora: num_train_epochs=1, lora_r=32, ...",
        metavar="KEY=VALUE",
    )  # fmt: skip
    sft_model_dir: NewPath = parameter(
        "./sft_model", "Training", "Model directory", "Where the trained model goes.", metavar="DIR"
    )

    @field_validator("env", "sft_config", "agent", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        return as_pairs(value)

    @field_validator("policy", mode="before")
    @classmethod
    def _policies(cls, value: Any) -> Any:
        return as_policies(value)

    @field_validator("keep_agents", "image_folders", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("model_name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        return check_name(name)

    @model_validator(mode="after")
    def _says_what_it_means(self) -> Self:
        for flag, read in (("env", lambda: self.env_settings), ("agent", lambda: self.cast),
                           ("policy", lambda: self.policies)):  # fmt: skip
            try:
                read()
            except ValueError as error:
                raise ValueError(f"--{flag}: {error}") from None
        if not self.policies:
            raise ValueError("--model_path: required: who plays; or --policy (or set MODEL_PATH in the environment)")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.balance_success and self.only_success:
            raise ValueError("--balance_success: there are no failed episodes to keep: add --no_only_success")
        check_places(
            cluster_block=self.cluster_block,
            gpu_workers=self.gpu_workers,
            own_port=None if self.external else self.model_port,
        )
        return self

    @model_validator(mode="after")
    def _can_train(self) -> Self:
        try:
            self._training("rows.jsonl")
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = f"{first['loc'][0]}: {first['input']!r}: " if first["loc"] else ""
            raise ValueError(f"--sft_config: {where}{first['msg'].removeprefix('Value error, ')}") from None
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
    def cast(self) -> dict[str, str]:
        """The policy of each agent that `agent` names."""
        return read_pairs(self.agent)

    @property
    def policies(self) -> list[PolicySpec]:
        """Who can play: `model_path`'s policy first. Each has a name of its own."""
        own = [] if self.model_path is None else [PolicySpec(self.model_name, home(self.model_path), self.sampling)]
        specs = [*own, *(read_policy(item, self.sampling) for item in self.policy)]
        names = [spec.name for spec in specs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"there are two policies {twice!r}: give each a name of its own")
        return specs

    @property
    def directory(self) -> Path:
        """The run's."""
        return Path(self.output_dir)

    @property
    def sampling(self) -> Sampling:
        """How policies sample that say nothing else."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed)

    @property
    def source(self) -> ProblemSource | None:
        """Where the problems are; None for the environment's own."""
        if self.dataset is None:
            return None
        return ProblemSource(
            dataset=self.dataset,
            split=self.split,
            prompt_field=self.prompt_field,
            answer_field=self.answer_field,
            id_field=self.id_field,
            image_folders=tuple(self.image_folders),
            max_problems=self.max_data,
            max_bad_share=self.max_bad_share,
        )

    def training(self, train_data: str) -> TrainLora | None:
        """The training on the rows in a file; None where none is wanted."""
        return self._training(train_data) if self.run_sft_training else None

    @property
    def _trained(self) -> str | None:
        """The model that is trained."""
        named = read_settings(self.sft_config).get("model_path")
        own = [spec.model for spec in self.policies if not spec.demonstration]
        return str(named) if named else own[0] if own else None

    def _training(self, train_data: str) -> TrainLora:
        given = read_settings(self.sft_config, known=SFT_KEYS)
        own = {"model_path": self._trained or "none", "train_data": [train_data], "output_dir": self.sft_model_dir}
        return TrainLora.model_validate(given | own)
