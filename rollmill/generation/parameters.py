"""Parameter models that generating jobs share: sampling, concurrency, worker processes, output."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from rollmill.config.file_parameters import STORE_BLOCK
from rollmill.config.names import NewPath
from rollmill.config.parameter import Parameters, parameter
from rollmill.generation.concurrency import AS_FOUND, Concurrency
from rollmill.generation.sampling import OPTIONAL_FIELDS, ChatTemplateArguments, ExtraBody, Sampling, Stops, TopK
from rollmill.inference.generation_config import recommended_sampling
from rollmill.inference.parameters import ServerParameters


class SamplingOptions(Parameters):
    """Sampling parameters besides temperature, top p and length; requests contain only those that are set."""

    sampling: Literal["flags", "model"] = parameter(
        "flags",
        "Sampling",
        "Recommended by",
        "model: the values of the model's generation_config.json, for every parameter that is not given here.",
    )
    top_k: TopK | None = parameter(None, "Sampling", "Top k", "Only the likeliest tokens; -1 for all.")
    min_p: float | None = parameter(
        None, "Sampling", "Min p", "Only tokens at least this likely, as a share of the likeliest one.", ge=0, le=1
    )
    presence_penalty: float | None = parameter(
        None, "Sampling", "Presence penalty", "Subtracted from the logits of tokens that the completion already has.",
        ge=-2, le=2,
    )  # fmt: skip
    frequency_penalty: float | None = parameter(
        None, "Sampling", "Frequency penalty", "The same, times the number of their occurrences.", ge=-2, le=2
    )
    repetition_penalty: float | None = parameter(
        None, "Sampling", "Repetition penalty", "Divides the logits of tokens in prompt and completion; 1 for none.",
        gt=0, le=10,
    )  # fmt: skip
    stop: Stops = parameter(
        (), "Sampling", "Stop", "Strings that end a completion, and are not part of it.", metavar="TEXT"
    )  # fmt: skip
    reasoning_effort: str | None = parameter(
        None, "Sampling", "Reasoning effort", "How much a reasoning model thinks: none, low, medium, high, ...",
        metavar="EFFORT", min_length=1, max_length=64,
    )  # fmt: skip
    chat_template_kwargs: ChatTemplateArguments = parameter(
        {}, "Sampling", "Chat template arguments",
        "JSON object of arguments for the model's chat template, as in '{\"enable_thinking\": false}'.",
        metavar="JSON",
    )  # fmt: skip
    extra_body: ExtraBody = parameter(
        {}, "Sampling", "Extra body", "JSON object of further fields of every request, as in '{\"min_tokens\": 8}'.",
        metavar="JSON",
    )  # fmt: skip

    @field_validator("stop", mode="before")
    @classmethod
    def _listify_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @property
    def set_names(self) -> frozenset[str]:
        """Return the names of the parameters that the user set.

        Prefect's form sends all parameters, untouched ones at their defaults: these do not count as set.
        """
        defaults = {
            name: field.get_default(call_default_factory=True)
            for name, field in type(self).model_fields.items()
            if not field.is_required()
        }
        from_form = all(name in self.model_fields_set for name, value in defaults.items() if value is not None)
        values = {name: getattr(self, name) for name in self.model_fields_set}
        return frozenset(
            name
            for name, value in values.items()
            if value is not None and not (from_form and value == defaults.get(name))
        )


class SamplingParameters(SamplingOptions):
    """Sampling parameters of the policy."""

    temperature: float = parameter(1.0, "Sampling", "Temperature", "Sampling temperature.", ge=0, le=10)
    top_p: float = parameter(1.0, "Sampling", "Top p", "Nucleus of the sampling.", gt=0, le=1)
    max_tokens: int = parameter(2048, "Sampling", "Max tokens", "Longest completion, in tokens.", ge=1)
    seed: int = parameter(0, "Sampling", "Seed", "Seed of the run; every rollout's own seed follows from it.", ge=0)

    @property
    def sampling_of_flags(self) -> Sampling:
        """Return the sampling by these parameters alone."""
        names = ("temperature", "top_p", "max_tokens", "seed", *OPTIONAL_FIELDS)
        return Sampling.model_validate({name: getattr(self, name) for name in names})

    def sampling_of(self, model: str, *, set_by_user: frozenset[str] = frozenset()) -> Sampling:
        """Return the sampling of a model: with `--sampling model` including what its generation_config.json recommends.

        Raises `InputError` where the model has no such file.

        Args:
            model: Directory or hub id.
            set_by_user: Names of further parameters that are set for this model, and so are not replaced.
        """
        if self.sampling == "flags":
            return self.sampling_of_flags
        return self.sampling_of_flags.with_recommended(recommended_sampling(model), self.set_names | set_by_user)


class ContextParameters(Parameters):
    """Parameters of the conversation that a model is sent."""

    drop_reasoning: bool = parameter(
        False, "Sampling", "Drop reasoning",
        "Leave reasoning content out of earlier assistant messages, for models and servers that do not expect it.",
    )  # fmt: skip


class RolloutCount(Parameters):
    """The number of rollouts per problem."""

    num_rollout: int = parameter(
        16,
        "Sampling",
        "Rollouts per problem",
        "Attempts at each problem; raising it later continues the run.",
        ge=1,
        le=65536,
        aliases=("samples_per_task",),
    )


class ConcurrencyParameters(Parameters):
    """The number of rollouts in flight."""

    concurrency: Concurrency = parameter(
        64, "Running", "Concurrency", f"Rollouts in flight, on every worker{AS_FOUND}.", metavar="N|auto"
    )


class PlacementParameters(Parameters):
    """The processes that make the rollouts; not part of a run's identity."""

    cluster_block: str | None = parameter(
        None,
        "Running",
        "Cluster block",
        "Name of a dask-cluster block: its workers serve the models and make the rollouts.",
        metavar="BLOCK",
    )
    gpu_workers: int | None = parameter(
        None,
        "Running",
        "GPU workers",
        "Worker processes on this machine, each with servers and GPUs of its own; without: one server, on one GPU.",
        ge=1,
    )

    @model_validator(mode="after")
    def _check_placement(self) -> Self:
        if self.cluster_block and self.gpu_workers:
            raise ValueError("give --cluster_block or --gpu_workers, not both: a cluster has its own workers")
        return self

    @property
    def on_workers(self) -> bool:
        """Return whether rollouts are made on workers, not in the job's own process."""
        return self.cluster_block is not None or self.gpu_workers is not None


class OutputParameters(Parameters):
    """Paths of logs and copies of the results; not part of a run's identity."""

    log_dir: NewPath = parameter("logs", "Running", "Log directory", "Folder of vLLM's log.", metavar="DIR")
    store_block: str | None = STORE_BLOCK


class ServedJobParameters(OutputParameters, PlacementParameters, ServerParameters):
    """Parameters of jobs with inference servers: the servers, the processes that use them, their logs."""

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.model_port is not None and not self.external and self.gpu_workers and self.gpu_workers > 1:
            raise ValueError(
                f"--model_port {self.model_port}: there are {self.gpu_workers} servers with --gpu_workers: leave it "
                "out, and each takes a free port"
            )
        return self
