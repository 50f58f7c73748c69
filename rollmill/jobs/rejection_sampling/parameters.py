"""The parameters of a rejection sampling run: command line, form and deployment defaults in one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, field_validator, model_validator

from rollmill.config.form import Form
from rollmill.config.names import ModelPath, NewPath, RunName, check_new_run
from rollmill.config.parameter import Parameters, parameter, redefine
from rollmill.generation.concurrency import AS_FOUND, AUTO, Concurrency
from rollmill.generation.parameters import (
    OutputParameters,
    RolloutCount,
    SamplingParameters,
    ServedJobParameters,
)
from rollmill.inference.parameters import ServerParameters
from rollmill.problems.parameters import DatasetParameters, FewShotParameters, ProblemLimits
from rollmill.problems.source import Flag, ProblemSource
from rollmill.verifiers.parameters import VerificationParameters


class Checkpoints(Parameters):
    """The models of a call, with one run for each."""

    model_path: list[ModelPath] = parameter(
        ...,
        "Model",
        "Model path",
        "Directory or hub id of the model; several models have one run each.",
        metavar="PATH",
        env=True,
        min_length=1,
    )
    model_name: list[RunName] = parameter(
        ...,
        "Model",
        "Model name",
        "Name of the run, of its folder and of the served model; one per model path.",
        metavar="NAME",
        env=True,
        min_length=1,
    )
    adapter: list[str] = parameter(
        [],
        "Model",
        "Adapter",
        "Directory of a LoRA adapter to serve on the model; one per model path, '' for none.",
        metavar="DIR",
    )

    @field_validator("model_path", "model_name", "adapter", mode="before")
    @classmethod
    def _wrap_in_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("model_name")
    @classmethod
    def _names_differ(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("two runs have the same name: give each another name")
        return names

    @model_validator(mode="after")
    def _have_equal_lengths(self) -> Self:
        if len(self.model_path) != len(self.model_name):
            raise ValueError(
                f"{len(self.model_path)} --model_path but {len(self.model_name)} --model_name: give as many"
            )
        if self.adapter and len(self.adapter) != len(self.model_path):
            raise ValueError(
                f"{len(self.adapter)} --adapter but {len(self.model_path)} --model_path: give as many, '' for none"
            )
        return self

    @property
    def adapters(self) -> list[str]:
        """Directory of the adapter of each model path; empty for none."""
        return self.adapter or [""] * len(self.model_path)


class RejectSampling(
    Form,
    ServedJobParameters,
    VerificationParameters,
    SamplingParameters,
    RolloutCount,
    FewShotParameters,
    DatasetParameters,
    Checkpoints,
):
    """Give every problem N rollouts, score each, report the errors, keep the good ones as training data."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    dataset: str = redefine(DatasetParameters, "dataset", "Coobiw/merged_agiqa5k_prompt_1022")

    max_problems: int | None = redefine(ProblemLimits, "max_problems", None, env=("MAX_PROBLEMS", "MAX_DATA"))
    num_rollout: int = redefine(RolloutCount, "num_rollout", 16, env=True)
    temperature: float = redefine(SamplingParameters, "temperature", 1.0, env=True)

    skip_vllm_launch: bool = parameter(
        False,
        "Server",
        "Skip the launch of vLLM",
        "Use a server that is running, at --base_url or --model_port.",
        env=True,
    )
    model_port: int | None = redefine(
        ServerParameters,
        "model_port",
        None,
        description="Port to serve at, or of the running server (8000); else a free one.",
        env=True,
    )
    max_retries: int = redefine(ServerParameters, "max_retries", 10, env=True)

    concurrent_problems: Concurrency = parameter(
        8,
        "Running",
        "Concurrent problems",
        f"Problems at a time; requests in flight (on every worker): this times --num_rollout{AS_FOUND}.",
        metavar="N|auto",
        env=("CONCURRENT_PROBLEMS", "CONCURRENCY"),
        aliases=("concurrency",),
    )
    retry: Literal["failed", "truncated"] | None = parameter(
        None, "Running", "Redo", "Of the run on disk, redo only the rollouts that failed, or that were cut off."
    )
    reverify: bool = parameter(
        False, "Running", "Score again", "Score the completions on disk with another verifier; generate nothing."
    )
    no_canary: bool = parameter(False, "Running", "No canary", "Do not try a few problems first.")
    output_dir: NewPath = parameter(
        "reject_sampling_results",
        "Running",
        "Output directory",
        "Runs are written to folders of their names in here.",
        metavar="DIR",
    )
    log_dir: NewPath = redefine(
        OutputParameters,
        "log_dir",
        "logs",
        description="Where NAME_vllm.log goes, the log of the server of run NAME.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in self.model_name:
            check_new_run(name, Path(self.output_dir))
        if self.external and len(self.model_name) > 1:
            raise ValueError(
                "several models need servers of their own: leave out --base_url, --endpoint_block, --skip_vllm_launch"
            )
        if self.external and any(self.adapter):
            raise ValueError(
                "--adapter: running servers decide what they serve: leave it out, and give its directory as "
                "--model_path and the name under which they serve it as --model_name"
            )
        if self.reverify and self.retry:
            raise ValueError("--reverify generates nothing and --retry does: give one of them")
        return self

    @property
    def external(self) -> bool:
        """True if running servers are used."""
        return self.skip_vllm_launch or super().external

    @property
    def base_urls(self) -> list[str]:
        """Addresses of the running servers."""
        return self.base_url or [f"http://127.0.0.1:{self.model_port or 8000}/v1"]

    @property
    def source(self) -> ProblemSource:
        """The source of the problems."""
        source = super().source
        assert source is not None
        return source

    @property
    def directories(self) -> list[Path]:
        """The run directory of each model."""
        return [Path(self.output_dir) / name for name in self.model_name]

    @property
    def canary(self) -> bool:
        """True if a few problems are tried first: not where only parts of a run are redone."""
        return not self.no_canary and self.retry is None

    @property
    def slots(self) -> Concurrency:
        """Most requests in flight on every worker."""
        problems = self.concurrent_problems
        return AUTO if problems == AUTO else problems * self.num_rollout


class HeldOutSampling(RejectSampling):
    """Parameters of an evaluation, for commands with `--held_out`: messages name that flag."""

    source_flags: ClassVar[Mapping[Flag, str]] = {
        "dataset": "--held_out",
        "split": "--held_out_split",
        "image_folders": "--image_folders",
    }


class LoopSampling(RejectSampling):
    """Parameters of rejection sampling in the improvement loop, which has no flags for columns: see `source_flags`."""

    source_flags: ClassVar[Mapping[Flag, str]] = {
        "dataset": "--dataset",
        "split": "--dataset_split",
        "image_folders": "--image_folders",
    }
