"""The parameters of a rejection sampling run: command line, form and deployment defaults in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, field_validator, model_validator

from rollmill.config.file_parameters import STORE_BLOCK, image_folders_field
from rollmill.config.form import Form
from rollmill.config.names import ModelPath, NewPath, RunName, check_new_run
from rollmill.config.parameter import ShellLine, parameter
from rollmill.generation.parameters import CLUSTER_BLOCK, GPU_WORKERS, check_places
from rollmill.generation.sampling import Sampling
from rollmill.problems import ProblemSource

_METAVARS = {
    "Model path": "PATH",
    "Model name": "NAME",
    "Adapter": "DIR",
    "Prompt field": "COLUMN",
    "Answer field": "COLUMN",
    "Id field": "COLUMN",
    "Image field": "COLUMN",
    "Few-shot examples": "FILE",
    "Base URLs": "URL",
    "Endpoint block": "BLOCK",
    "Server block": "BLOCK",
    "vLLM arguments": "ARGS",
    "Request timeout": "SECONDS",
    "Output directory": "DIR",
    "Log directory": "DIR",
}


def _field(default: Any, group: str, title: str, description: str, **more: Any) -> Any:
    return parameter(default, group, title, description, metavar=_METAVARS.get(title), **more)


class RejectSampling(Form):
    """Give every problem N rollouts, score each, report the errors, keep the good ones as training data."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_path: list[ModelPath] = _field(
        ...,
        "Model",
        "Model path",
        "Directory or hub id of the model; several give one run each.",
        env=True,
        min_length=1,
    )
    model_name: list[RunName] = _field(
        ...,
        "Model",
        "Model name",
        "Name of the run, of its folder and of the served model; one per model path.",
        env=True,
        min_length=1,
    )
    adapter: list[str] = _field(
        [], "Model", "Adapter", "Directory of a LoRA adapter to serve on the model; one per model path, '' for none."
    )

    dataset: str = _field(
        "Coobiw/merged_agiqa5k_prompt_1022", "Problems", "Data set",
        "Hub id, local directory, .jsonl/.json/.parquet file, or reasoning_gym:NAME?size=100&seed=7.",
    )  # fmt: skip
    dataset_split: str = _field("train", "Problems", "Split", "Split of a hub or directory data set.")
    prompt_field: str | None = _field(None, "Problems", "Prompt field", "Column of the question; found when obvious.")
    answer_field: str | None = _field(
        None, "Problems", "Answer field", "Column of the ground truth; dots reach into nested columns."
    )
    id_field: str | None = _field(None, "Problems", "Id field", "Column of the problems' ids; else the row number.")
    image_field: str = _field("images", "Problems", "Image field", "Column of the images that go with the question.")
    image_folders: list[str] = image_folders_field("Problems")
    max_data: int | None = _field(None, "Problems", "Max data", "Only the first so many problems.", env=True, ge=1)
    max_bad_share: float = _field(
        0.1,
        "Problems",
        "Largest share of bad rows",
        "Stop when more than this share of the rows is unusable.",
        ge=0,
        le=1,
    )

    prompt_template: str | None = _field(
        None, "Prompt", "Prompt template", "Text, or a file of it, with {prompt} and other {columns}; {{ }} for braces."
    )
    few_shot: str | None = _field(
        None, "Prompt", "Few-shot examples", "JSON Lines file of examples (prompt, answer) to put before the question."
    )
    system_prompt: str | None = _field(None, "Prompt", "System prompt", "Text of a system message.")

    num_rollout: int = _field(
        16, "Sampling", "Rollouts per problem", "Attempts at each problem.", env=True, ge=1, le=65536
    )
    temperature: float = _field(1.0, "Sampling", "Temperature", "Sampling temperature.", env=True, ge=0, le=10)
    top_p: float = _field(1.0, "Sampling", "Top p", "Nucleus of the sampling.", gt=0, le=1)
    max_tokens: int = _field(2048, "Sampling", "Max tokens", "Longest completion, in tokens.", ge=1)
    seed: int = _field(0, "Sampling", "Seed", "Seed of the run; every rollout's own seed follows from it.", ge=0)

    verifier: str = _field(
        "numeric", "Verification", "Verifier", "numeric, exact, math, reasoning_gym, or the dotted path of one's own."
    )
    accept_error: float = _field(
        0.0, "Verification", "Accepted error", "A rollout is accepted when its error is at most this.", ge=0
    )

    skip_vllm_launch: bool = _field(
        False,
        "Server",
        "Skip the launch of vLLM",
        "Use a server that is running, at --base_url or --model_port.",
        env=True,
    )
    model_port: int | None = _field(
        None,
        "Server",
        "Port",
        "Port to serve at, or of the running server (8000); else a free one.",
        env=True,
        ge=1,
        le=65535,
    )
    base_url: list[str] = _field(
        [], "Server", "Base URLs", "Running OpenAI-compatible servers (http://host:8000/v1); requests are balanced."
    )
    endpoint_block: str | None = _field(
        None, "Server", "Endpoint block", "Name of an inference-endpoint block: URLs and key of running servers."
    )
    server_block: str | None = _field(
        None, "Server", "Server block", "Name of a vllm-server block: how this machine starts vLLM."
    )
    vllm_args: ShellLine = _field(
        "", "Server", "vLLM arguments", "More arguments for vLLM, as in a shell, in one string."
    )

    concurrency: int = _field(
        8,
        "Running",
        "Concurrency",
        "Problems at a time; requests in flight (on every worker): this times --num_rollout.",
        env=True,
        ge=1,
        le=65536,
    )
    max_retries: int = _field(
        10, "Running", "Max retries", "Retries of a request that failed on the way.", env=True, ge=0
    )
    request_timeout: float = _field(600.0, "Running", "Request timeout", "Seconds that one request may take.", gt=0)
    retry: Literal["failed", "truncated"] | None = _field(
        None, "Running", "Redo", "Of the run on disk, redo only the rollouts that failed, or that were cut off."
    )
    reverify: bool = _field(
        False, "Running", "Score again", "Score the completions on disk with another verifier; generate nothing."
    )
    no_canary: bool = _field(False, "Running", "No canary", "Do not try a few problems first.")
    cluster_block: str | None = CLUSTER_BLOCK
    gpu_workers: int | None = GPU_WORKERS
    output_dir: NewPath = _field(
        "reject_sampling_results", "Running", "Output directory", "Runs are written to folders of their names in here."
    )
    log_dir: NewPath = _field(
        "logs", "Running", "Log directory", "Where NAME_vllm.log goes, the log of the server of run NAME."
    )
    store_block: str | None = STORE_BLOCK

    @field_validator("model_path", "model_name", "adapter", "base_url", "image_folders", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("model_name")
    @classmethod
    def _names_differ(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("every run needs a name of its own")
        return names

    @field_validator("base_url")
    @classmethod
    def _urls_are_http(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} does not start with http:// or https://")
        trimmed = [url.rstrip("/") for url in urls]
        return [url if url.endswith("/v1") else f"{url}/v1" for url in trimmed]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.model_path) != len(self.model_name):
            raise ValueError(
                f"{len(self.model_path)} --model_path but {len(self.model_name)} --model_name: give as many"
            )
        for name in self.model_name:
            check_new_run(name, Path(self.output_dir))
        if self.external and len(self.model_name) > 1:
            raise ValueError(
                "several models need servers of their own: leave out --base_url, --endpoint_block, --skip_vllm_launch"
            )
        if self.adapter and len(self.adapter) != len(self.model_path):
            raise ValueError(
                f"{len(self.adapter)} --adapter but {len(self.model_path)} --model_path: give as many, '' for none"
            )
        if self.external and any(self.adapter):
            raise ValueError(
                "--adapter: running servers decide what they serve: leave it out, and give its directory as "
                "--model_path and the name under which they serve it as --model_name"
            )
        if self.reverify and self.retry:
            raise ValueError("--reverify generates nothing and --retry does: give one of them")
        check_places(
            cluster_block=self.cluster_block,
            gpu_workers=self.gpu_workers,
            own_port=None if self.external else self.model_port,
        )
        return self

    @property
    def external(self) -> bool:
        """Whether servers that are running already are used."""
        return bool(self.skip_vllm_launch or self.base_url or self.endpoint_block)

    @property
    def directories(self) -> list[Path]:
        """The run directory of each model."""
        return [Path(self.output_dir) / name for name in self.model_name]

    @property
    def adapters(self) -> list[str]:
        """For each model path a directory, or empty."""
        return self.adapter or [""] * len(self.model_path)

    @property
    def base_urls(self) -> list[str]:
        """Addresses of the running servers."""
        return self.base_url or [f"http://127.0.0.1:{self.model_port or 8000}/v1"]

    @property
    def sampling(self) -> Sampling:
        """How the policy samples."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed)

    @property
    def source(self) -> ProblemSource:
        """Where the problems are."""
        return ProblemSource(
            dataset=self.dataset,
            split=self.dataset_split,
            prompt_field=self.prompt_field,
            answer_field=self.answer_field,
            id_field=self.id_field,
            image_field=self.image_field,
            image_folders=tuple(self.image_folders),
            max_problems=self.max_data,
            max_bad_share=self.max_bad_share,
        )

    @property
    def canary(self) -> bool:
        """Whether a few problems are tried first: not where only parts of a run are redone."""
        return not self.no_canary and self.retry is None

    @property
    def slots(self) -> int:
        """Requests in flight at most, of every worker."""
        return self.concurrency * self.num_rollout
