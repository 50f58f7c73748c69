"""The parameters of agent rollouts: command line, form and deployment defaults in one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, field_validator, model_validator

from rollmill.config.file_parameters import STORE_BLOCK
from rollmill.config.form import Form
from rollmill.config.names import ModelPath, NewPath
from rollmill.config.parameter import Parameters, parameter
from rollmill.generation.parameters import CLUSTER_BLOCK, GPU_WORKERS, check_places
from rollmill.generation.sampling import Sampling
from rollmill.inference.parameters import ServerParameters
from rollmill.sandboxes.parameters import SandboxPlace


class Attempts(Parameters):
    """What is attempted, by whom, how often."""

    dataset: str | None = parameter(
        None, "Problems", "Data set", "JSON or JSON Lines file of problems; see examples/performance_problems.",
        metavar="FILE",
    )  # fmt: skip
    instance: str | None = parameter(
        None, "Problems", "Instance", "One problem: a JSON file of it, or its id in the data set.", metavar="FILE"
    )  # fmt: skip
    max_tasks: int | None = parameter(None, "Problems", "Max tasks", "Only the first so many problems.", ge=1)
    max_bad_share: float = parameter(
        0.1, "Problems", "Largest share of bad rows", "Stop when more than this share of the rows is unusable.",
        ge=0, le=1,
    )  # fmt: skip

    model: ModelPath = parameter(
        ..., "Model", "Model", "Directory or hub id to serve, or its name on servers that run.", metavar="PATH"
    )
    config: str = parameter(
        "mini.yaml", "Agent", "Configuration",
        "mini-swe-agent's YAML: a file, or mini.yaml (tool calls) or mini_textbased.yaml (text) of its own.",
        metavar="FILE",
    )  # fmt: skip
    step_limit: int | None = parameter(
        None, "Agent", "Step limit", "Model calls of one attempt; else the configuration's; 0 for no limit.", ge=0
    )
    time_limit: int | None = parameter(
        None, "Agent", "Time limit", "Seconds of one attempt; else the configuration's; 0 for no limit.", ge=0
    )

    samples_per_task: int = parameter(
        1, "Sampling", "Samples per task", "Attempts at each problem; raising it later continues the run.",
        ge=1, le=65536,
    )  # fmt: skip
    temperature: float = parameter(1.0, "Sampling", "Temperature", "Sampling temperature.", ge=0, le=10)
    top_p: float = parameter(1.0, "Sampling", "Top p", "Nucleus of the sampling.", gt=0, le=1)
    max_tokens: int = parameter(8000, "Sampling", "Max tokens", "Longest answer of one model call, in tokens.", ge=1)
    seed: int = parameter(0, "Sampling", "Seed", "Seed of the run; every attempt's own seed follows from it.", ge=0)


class Grading(SandboxPlace):
    """What sandboxes are like, and how attempts are graded."""

    images: str | None = parameter(
        None, "Sandboxes", "Images", "Folder of bubblewrap's images; else `images` beside the data set.", metavar="DIR"
    )
    command_timeout: float | None = parameter(
        None, "Sandboxes", "Command time-out", "Seconds of one command; else the configuration's.", gt=0
    )
    memory_mb: int = parameter(2048, "Sandboxes", "Memory", "Of one sandbox, in MiB.", ge=16)
    processes: int = parameter(256, "Sandboxes", "Processes", "Of one sandbox.", ge=1)

    eval_server: str | None = parameter(
        None, "Grading", "Evaluation server", "host:port of an evaluation service (/evaluate_v3); else here.",
        metavar="HOST:PORT",
    )  # fmt: skip
    eval_block: str | None = parameter(
        None, "Grading", "Evaluation block", "Name of an evaluation-service block: its address and token.",
        metavar="BLOCK",
    )  # fmt: skip
    ladder: str = parameter(
        "default", "Grading", "Ladder", "Reward by speedup: default, observed, or a JSON file of steps.", metavar="NAME"
    )


class AgentRollouts(Form, ServerParameters, Grading, Attempts):
    """Give every coding problem N attempts by an agent in a sandbox, and score each by tests and speed."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    workers: int = parameter(4, "Running", "Workers", "Sandboxes at a time, on every worker.", ge=1, le=4096)
    cluster_block: str | None = CLUSTER_BLOCK
    gpu_workers: int | None = GPU_WORKERS
    retry: Literal["failed"] | None = parameter(
        None, "Running", "Redo", "Of the run on disk, redo only the attempts that failed on the way."
    )
    output: NewPath = parameter(
        ..., "Running", "Output", "The document of all attempts; the run is kept in a folder of its name.",
        metavar="FILE",
    )  # fmt: skip
    log_dir: NewPath = parameter("logs", "Running", "Log directory", "Where vLLM's log goes.", metavar="DIR")
    log_file: NewPath | None = parameter(
        None, "Running", "Log file", "Also write what is logged to this file.", metavar="FILE"
    )
    store_block: str | None = STORE_BLOCK

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
            raise ValueError(f"--instance {self.instance}: no such file; of an id, --dataset says in which file it is")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.samples_per_task > 1 and self.temperature == 0:
            raise ValueError(
                f"--samples_per_task {self.samples_per_task} at --temperature 0 gives the same attempt again and "
                "again: raise the temperature, or ask for one sample"
            )
        if self.eval_server and self.eval_block:
            raise ValueError("give --eval_server or --eval_block, not both")
        if self.grades_elsewhere and self.place != "remote":
            raise ValueError(
                "an evaluation service sees only sandboxes of a sandbox service: give --docker_server, too"
            )
        check_places(
            cluster_block=self.cluster_block,
            gpu_workers=self.gpu_workers,
            own_port=None if self.external else self.model_port,
        )
        return self

    def anywhere(self) -> Self:
        """The same with absolute paths, for a process that runs in another folder."""
        paths = {"output": Path(self.output), "log_dir": Path(self.log_dir), "images": self.image_folder}
        paths["instance" if self.dataset is None else "dataset"] = Path(self.problem_file)
        if (config := Path(self.config).expanduser()).is_file():
            paths["config"] = config
        from rollmill.grading.reward_schedule import LADDERS

        if self.ladder not in LADDERS:
            paths["ladder"] = Path(self.ladder).expanduser()
        if (model := Path(self.model)).is_dir() and not self.external:
            paths["model"] = model
        return self.model_copy(update={name: str(path.absolute()) for name, path in paths.items()})

    @property
    def grades_elsewhere(self) -> bool:
        """Whether a service grades."""
        return self.eval_server is not None or self.eval_block is not None

    @property
    def directory(self) -> Path:
        """The run's."""
        return Path(self.output).with_suffix("")

    @property
    def image_folder(self) -> Path:
        """Where bubblewrap's images are."""
        return Path(self.images) if self.images else Path(self.problem_file).parent / "images"

    @property
    def problem_file(self) -> str:
        """Where the problems are: the data set, or the one problem's own file."""
        return self.dataset if self.dataset is not None else str(self.instance)

    @property
    def instance_id(self) -> str | None:
        """The only problem of the data set that is wanted; None for all."""
        return self.instance if self.dataset is not None else None

    @property
    def sampling(self) -> Sampling:
        """How the policy samples."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed)


class GenerateMulti(AgentRollouts):
    """Attempts at every problem of a data set."""


class GenerateSingle(AgentRollouts):
    """Attempts at one problem: --instance is its JSON file, or its id in --dataset."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.instance is None:
            raise ValueError("--instance: required: the problem's JSON file, or its id in --dataset")
        return self
