"""The parameters of q* sampling: command line, form and deployment defaults in one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, field_validator, model_validator

from rollmill.config.form import Form
from rollmill.config.names import ModelPath, NewPath
from rollmill.config.parameter import Parameters, ShellLine, parameter, redefine
from rollmill.errors import InputError
from rollmill.generation.parameters import OutputParameters, PlacementParameters, SamplingOptions, SamplingParameters
from rollmill.jobs.optimal_sampling.pair_flags import check_flags
from rollmill.problems.parameters import DatasetColumns, ProblemLimits

CONVENTION = "q* ~ pi_theta^alpha * pi_t^(1-alpha)"
ADAPTERS = ("auto", "deepscaler", "generic")

AlphaMethod = Literal["kl_symmetry", "fixed", "entropy", "ess_balance", "reverse_kl_symmetry"]
Dtype = Literal["auto", "float16", "bfloat16", "float32"]


class Models(Parameters):
    """The two models, and the method of their weight."""

    model_theta: ModelPath = parameter(
        ..., "Models", "Policy", "The current policy pi_theta: directory or hub id.", metavar="PATH"
    )
    model_t: ModelPath | None = parameter(
        None, "Models", "Target", "The target pi_t: directory or hub id; else pi_theta's, with --adapter_* or --hint.",
        metavar="PATH",
    )  # fmt: skip
    adapter_theta: str | None = parameter(
        None, "Models", "Adapter of the policy", "Directory of a LoRA adapter on pi_theta's model.", metavar="DIR"
    )
    adapter_t: str | None = parameter(
        None, "Models", "Adapter of the target", "Directory of a LoRA adapter on pi_t's model.", metavar="DIR"
    )
    hint: str | None = parameter(
        None, "Models", "Hint",
        "Text that only pi_t sees: a text, a template or a file of one; it may name columns, as in {answer}, "
        "{response} for the data's own answer, and {prompt} for the place of the prompt (else the prompt follows it).",
        metavar="TEXT",
    )  # fmt: skip
    backend: Literal["transformers", "vllm"] = parameter(
        "transformers", "Models", "Backend",
        "Library that runs the models; vllm: both in one vLLM, exact too, for adapters of one model and for hints.",
    )  # fmt: skip
    vllm_args: ShellLine = parameter(
        "", "Models", "vLLM arguments", "More arguments for vLLM, as in a shell, in one string.", metavar="ARGS"
    )
    device: str = parameter("auto", "Models", "Device", "cuda, cuda:1, cpu, ...; auto: a GPU where there is one.")
    device_t: str = parameter(
        "auto", "Models", "Device of the target",
        "Device of pi_t beside a named --device, as in --device cuda:0 --device_t cuda:1; auto: the same one.",
    )  # fmt: skip
    dtype: Dtype = parameter("auto", "Models", "Dtype", "Dtype of the weights; auto: bfloat16 on a GPU, float32 else.")

    alpha_method: AlphaMethod = parameter(
        "kl_symmetry", "Weight", "Alpha method",
        "Method for alpha, the weight of pi_theta, at every token; kl_symmetry: KL(q*||pi_theta) = KL(q*||pi_t).",
    )  # fmt: skip
    fixed_alpha: float = parameter(0.5, "Weight", "Fixed alpha", "The weight of --alpha_method fixed.", ge=0, le=1)
    alpha_tol: float = parameter(
        1e-6, "Weight", "Alpha tolerance", "Error of the methods that solve for alpha.", gt=0, le=0.1
    )


class Prompts(Parameters):
    """The data set of prompts, and its rows to sample."""

    dataset: str = redefine(
        DatasetColumns,
        "dataset",
        ...,
        group="Data",
        description="Hub id, local directory, .jsonl/.json/.parquet file, or reasoning_gym:NAME.",
        metavar="NAME",
    )
    dataset_split: str = redefine(DatasetColumns, "dataset_split", "train", group="Data")
    dataset_adapter: str = parameter(
        "auto", "Data", "Adapter",
        "auto and deepscaler find the columns, generic takes --prompt_field's; or a class of your own as "
        "package.module:Class, with get_prompt(idx), get_metadata(idx) and __len__.",
        metavar="{auto,deepscaler,generic,MODULE:CLASS}",
    )  # fmt: skip
    prompt_field: str | None = redefine(
        DatasetColumns,
        "prompt_field",
        None,
        group="Data",
        description="Column of the prompt, text or messages; found when obvious.",
    )
    response_field: str | None = parameter(
        None, "Data", "Response field", "Column of the data's own answer, {response} in --hint; found when obvious.",
        metavar="COLUMN",
    )  # fmt: skip
    total_rollouts: int | None = parameter(
        None, "Data", "Samples", "Number of rows to sample, from --start_idx on; else all.",
        ge=1, aliases=("num_samples",),
    )  # fmt: skip
    start_idx: int = parameter(0, "Data", "Start", "The first row, from 0. Earlier samples stay in the output.", ge=0)
    max_bad_share: float = redefine(ProblemLimits, "max_bad_share", 0.1, group="Data")


_REFUSAL = "q* is drawn token by token from two models in this process, by --temperature, --top_p and --top_k alone"


class OptimalSampling(Form, PlacementParameters, Prompts, Models):
    """Draw training samples, token by token, from q*: the geometric mixture of a policy and a target model."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    refused: ClassVar[dict[str, str]] = {name: _REFUSAL for name in SamplingOptions.model_fields if name != "top_k"}
    """Sampling options of other flows, with the reason why they are refused here."""

    max_tokens: int = redefine(
        SamplingParameters, "max_tokens", 512, description="Longest answer, in tokens.", aliases=("max_new_tokens",)
    )
    temperature: float = redefine(
        SamplingParameters, "temperature", 1.0, description="Temperature of q*; 0: its likeliest token."
    )
    top_p: float = redefine(SamplingParameters, "top_p", 1.0, description="Nucleus of q*.")
    top_k: int = parameter(-1, "Sampling", "Top k", "Only q*'s likeliest tokens; -1 for all.", ge=-1)
    support_top_k: int = parameter(
        -1, "Sampling", "Top k of the support", "Restrict q* to so many of pi_t's likeliest tokens; -1 for all.", ge=-1
    )
    support_top_p: float = parameter(
        1.0, "Sampling", "Top p of the support", "Restrict q* to pi_t's nucleus of this mass.", gt=0, le=1
    )
    seed: int = redefine(
        SamplingParameters, "seed", 0, description="Seed of the run; every sample's own seed follows from it."
    )
    batch_size: int = parameter(8, "Sampling", "Batch size", "Samples in flight; halved where memory runs out.", ge=1)

    cluster_block: str | None = redefine(
        PlacementParameters, "cluster_block", None, description="Name of a dask-cluster block, whose workers sample."
    )
    gpu_workers: int | None = redefine(
        PlacementParameters,
        "gpu_workers",
        None,
        description="Processes on this machine, each with both models on a GPU of its own; else one for each GPU.",
        aliases=("workers",),
    )
    shard_size: int = parameter(64, "Running", "Shard size", "Rows that a worker samples at a time.", ge=1)
    output: NewPath = parameter(
        ..., "Output", "Output", "JSON Lines file of the samples; the run is in the directory of its name.",
        metavar="FILE.jsonl",
    )  # fmt: skip
    save_diagnostics: bool = parameter(
        False, "Output", "Save diagnostics", "Also write FILE.diagnostics.jsonl: alpha, KL and ESS of every sample."
    )
    store_block: str | None = redefine(OutputParameters, "store_block", None)

    @field_validator("output")
    @classmethod
    def _is_json_lines(cls, path: str) -> str:
        if Path(path).suffix != ".jsonl" or Path(path).stem.endswith(".diagnostics"):
            raise ValueError("give a name that ends in .jsonl, as in data/generated.jsonl")
        return path

    @field_validator("dataset_adapter")
    @classmethod
    def _is_an_adapter(cls, name: str) -> str:
        if name not in ADAPTERS and ":" not in name:
            raise ValueError(f"give {', '.join(ADAPTERS)}, or the path of a class as package.module:Class")
        return name

    @field_validator("model_theta", "model_t", "adapter_theta", "adapter_t")
    @classmethod
    def _expand_home(cls, path: str | None) -> str | None:
        return str(Path(path).expanduser()) if path and path.startswith("~") else path

    @model_validator(mode="after")
    def _fits_the_backend(self) -> Self:
        if self.backend != "vllm":
            if self.vllm_args:
                raise ValueError("--vllm_args is for --backend vllm")
            return self
        try:
            check_flags(shlex.split(self.vllm_args))
        except InputError as error:
            raise ValueError(str(error)) from error
        if self.device != "auto" or self.device_t != "auto":
            flag, device = ("--device", self.device) if self.device != "auto" else ("--device_t", self.device_t)
            raise ValueError(
                f"{flag} {device}: vLLM takes the device that it is built for; choose a GPU by CUDA_VISIBLE_DEVICES"
            )
        return self

    @model_validator(mode="after")
    def _has_two_devices(self) -> Self:
        if self.device_t == "auto":
            return self
        if self.model_t is None:
            raise ValueError(
                f"--device_t {self.device_t}: without --model_t there is one set of weights, on --device: leave it out"
            )
        if self.device == "auto":  # each process sees one GPU then
            raise ValueError(f"--device_t {self.device_t}: name --device, too, as in --device cuda:0")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.alpha_method != "fixed" and self.fixed_alpha != 0.5:
            raise ValueError(f"--fixed_alpha {self.fixed_alpha:g}: --alpha_method {self.alpha_method} finds its own")
        if self.dataset_adapter == "generic" and self.prompt_field is None:
            raise ValueError("--dataset_adapter generic needs --prompt_field: which column is the prompt")
        if self.own_adapter and (self.prompt_field or self.response_field):
            raise ValueError(f"--dataset_adapter {self.dataset_adapter} gives prompts: leave out --prompt_field and "
                             "--response_field")  # fmt: skip
        if self.batch_size > self.shard_size:
            raise ValueError(
                f"--batch_size {self.batch_size} is never filled by shards of {self.shard_size} rows: raise "
                f"--shard_size, to {8 * self.batch_size} for example"
            )
        if Path(self.output).resolve() == Path(self.dataset).resolve():
            raise ValueError(f"--output {self.output} is the data set: give another name")
        return self

    @property
    def directory(self) -> Path:
        """The run's directory: the output's name without its suffix."""
        return Path(self.output).with_suffix("")

    @property
    def diagnostics(self) -> Path:
        """The file of diagnostics."""
        return Path(self.output).with_suffix(".diagnostics.jsonl")

    @property
    def own_adapter(self) -> bool:
        """True if the data set is read by the user's own class."""
        return self.dataset_adapter not in ADAPTERS

    @property
    def is_policy(self) -> bool:
        """True if pi_t is pi_theta, so that q* is the policy itself."""
        same_model = self.model_t is None or Path(self.model_t).resolve() == Path(self.model_theta).resolve()
        return same_model and self.adapter_theta == self.adapter_t and self.hint is None


class AnalyzeDiagnostics(Parameters):
    """Compare files of diagnostics: print a table, and plot alpha, KL and ESS by position."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: list[str] = parameter(
        ..., "Input", "Files", "Files that --save_diagnostics wrote; the flag may be left out.", metavar="FILE",
        min_length=1,
    )  # fmt: skip
    output: NewPath = parameter("analysis.png", "Output", "Picture", "File of the plot.", metavar="FILE.png")

    @field_validator("files", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("output")
    @classmethod
    def _is_a_picture(cls, path: str) -> str:
        if Path(path).suffix != ".png":
            raise ValueError("give a name that ends in .png")
        return path
