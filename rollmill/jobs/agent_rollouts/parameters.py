"""The parameters of agent rollouts: command line, form and deployment defaults in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, field_validator, model_validator

from rollmill.config.form import Form
from rollmill.config.names import ModelPath, NewPath
from rollmill.config.parameter import Parameters, parameter, redefine
from rollmill.generation.concurrency import AUTO
from rollmill.generation.parameters import (
    ConcurrencyParameters,
    ContextParameters,
    RolloutCount,
    SamplingParameters,
    ServedJobParameters,
)
from rollmill.problems.parameters import ProblemLimits
from rollmill.sandboxes.parameters import SandboxParameters


class CodingProblems(Parameters):
    """The problems to attempt."""

    dataset: str | None = parameter(
        None, "Problems", "Data set", "JSON or JSON Lines file of problems; see examples/performance_problems.",
        metavar="FILE",
    )  # fmt: skip
    instance: str | None = parameter(
        None, "Problems", "Instance", "One problem: a JSON file of it, or its id in the data set.", metavar="FILE"
    )  # fmt: skip


class AgentParameters(Parameters):
    """The model, and the agent that it drives."""

    model_path: ModelPath = parameter(
        ..., "Model", "Model path", "Directory or hub id to serve, or its name on running servers.",
        metavar="PATH", aliases=("model",),
    )  # fmt: skip
    config: str = parameter(
        "mini.yaml", "Agent", "Configuration",
        "YAML of mini-swe-agent: a file, or its own mini.yaml (tool calls) or mini_textbased.yaml (text).",
        metavar="FILE",
    )  # fmt: skip
    step_limit: int | None = parameter(
        None, "Agent", "Step limit", "Most model calls of one attempt; else the configuration's; 0 for no limit.", ge=0
    )
    time_limit: int | None = parameter(
        None, "Agent", "Time limit", "Most seconds of one attempt; else the configuration's; 0 for no limit.", ge=0
    )


class Grading(SandboxParameters):
    """Sandboxes of attempts, and their grading."""

    images: str | None = parameter(
        None, "Sandboxes", "Images", "Folder of bubblewrap's images; else `images` beside the data set.", metavar="DIR"
    )
    command_timeout: float | None = parameter(
        None, "Sandboxes", "Command time-out", "Most seconds of one command; else the configuration's.", gt=0
    )
    memory_mb: int = parameter(2048, "Sandboxes", "Memory", "Memory of one sandbox, in MiB.", ge=16)
    processes: int = parameter(256, "Sandboxes", "Processes", "Most processes in one sandbox.", ge=1)

    eval_server: str | None = parameter(
        None, "Grading", "Evaluation server", "host:port of an evaluation service (/evaluate_v3); else graded here.",
        metavar="HOST:PORT",
    )  # fmt: skip
    eval_block: str | None = parameter(
        None, "Grading", "Evaluation block", "Name of an evaluation-service block: its address and token.",
        metavar="BLOCK",
    )  # fmt: skip
    ladder: str = parameter(
        "default", "Grading", "Ladder", "Reward by speedup: default, observed, or a JSON file of steps.", metavar="NAME"
    )


class AgentRollouts(
    Form,
    ConcurrencyParameters,
    ServedJobParameters,
    Grading,
    ContextParameters,
    SamplingParameters,
    RolloutCount,
    AgentParameters,
    ProblemLimits,
    CodingProblems,
):
    """Give every coding problem N attempts by an agent in a sandbox, and score each by tests and speed."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    num_rollout: int = redefine(RolloutCount, "num_rollout", 1)
    max_tokens: int = redefine(
        SamplingParameters, "max_tokens", 8000, description="Longest answer of one model call, in tokens."
    )
    concurrency: int = redefine(
        ConcurrencyParameters,
        "concurrency",
        4,
        description="Attempts at a time, each in a sandbox, on every worker.",
        metavar=None,
        aliases=("workers",),
        ge=1,
        le=4096,
    )
    retry: Literal["failed"] | None = parameter(
        None, "Running", "Redo", "Of the run on disk, redo only the attempts that failed on the way."
    )
    output: NewPath = parameter(
        ..., "Running", "Output", "The document of all attempts; the run is kept in a folder of its name.",
        metavar="FILE",
    )  # fmt: skip
    log_file: NewPath | None = parameter(
        None, "Running", "Log file", "Also write what is logged to this file.", metavar="FILE"
    )

    @field_validator("concurrency", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        if value == AUTO:
            raise ValueError(
                "each attempt has a sandbox, so that memory and cores limit their number, not servers: give a number"
            )
        return value

    @field_validator("output")
    @classmethod
    def _output_is_a_document(cls, value: str) -> str:
        if Path(value).suffix not in {".json", ".jsonl"}:
            raise ValueError(f"{value!r} ends neither in .json nor in .jsonl")
        return value

    @model_validator(mode="after")
    def _has_problems(self) -> Self:
        if self.dataset is None and self.instance is None:
            raise ValueError("--dataset: required: the file of the problems; or --instance: the file of one")
        if self.dataset is None and not Path(str(self.instance)).is_file():
            raise ValueError(
                f"--instance {self.instance}: no such file; if it is an id, give the file that has it as --dataset"
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.num_rollout > 1 and self.temperature == 0:
            raise ValueError(
                f"--num_rollout {self.num_rollout} at --temperature 0 gives the same attempt again and "
                "again: raise the temperature, or ask for one rollout"
            )
        if "tools" in self.extra_body:
            raise ValueError("--extra_body: tools: an agent's one tool is its shell: leave it out")
        if self.eval_server and self.eval_block:
            raise ValueError("give --eval_server or --eval_block, not both")
        if self.grades_elsewhere and self.sandbox_kind != "remote":
            raise ValueError(
                "an evaluation service sees only sandboxes of a sandbox service: give --sandbox_server, too"
            )
        return self

    @property
    def grades_elsewhere(self) -> bool:
        """True if an evaluation service grades."""
        return self.eval_server is not None or self.eval_block is not None

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return Path(self.output).with_suffix("")

    @property
    def image_folder(self) -> Path:
        """Folder of bubblewrap's images."""
        return Path(self.images) if self.images else Path(self.problem_file).parent / "images"

    @property
    def problem_file(self) -> str:
        """File of the problems: the data set, or the file of the one problem."""
        return self.dataset if self.dataset is not None else str(self.instance)

    @property
    def instance_id(self) -> str | None:
        """Id of the only problem of the data set to attempt; None for all."""
        return self.instance if self.dataset is not None else None


class GenerateMulti(AgentRollouts):
    """Attempts at every problem of a data set."""


class GenerateSingle(AgentRollouts):
    """Attempts at one problem: --instance is its JSON file, or its id in --dataset."""

    @model_validator(mode="after")
    def _needs_an_instance(self) -> Self:
        if self.instance is None:
            raise ValueError("--instance: required: the problem's JSON file, or its id in --dataset")
        return self
