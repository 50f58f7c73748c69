"""What a generating job's parameters say of sampling, of the processes that make rollouts, and of its run."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from rollmill.config.file_parameters import STORE_BLOCK
from rollmill.config.names import NewPath
from rollmill.config.parameter import Parameters, parameter
from rollmill.generation.concurrency import AS_FOUND, Concurrency
from rollmill.generation.sampling import OPTIONS, ChatTemplateArguments, ExtraBody, Sampling, Stops, TopK
from rollmill.inference.generation_config import recommended_sampling
from rollmill.inference.parameters import ServerParameters


class SamplingOptions(Parameters):
    """What requests say of sampling beyond temperature, top p and length; nothing of what is left out."""

    sampling: Literal["flags", "model"] = parameter(
        "flags",
        "Sampling",
        "Recommended by",
        "model: what the model's generation_config.json recommends, for all that is not given here.",
    )
    top_k: TopK | None = parameter(None, "Sampling", "Top k", "Only the likeliest tokens; -1 for all.")
    min_p: float | None = parameter(
        None, "Sampling", "Min p", "Only tokens at least this likely, as a share of the likeliest one.", ge=0, le=1
    )
    presence_penalty: float | None = parameter(
        None, "Sampling", "Presence penalty", "Taken from the logit of tokens that the answer has.", ge=-2, le=2
    )
    frequency_penalty: float | None = parameter(
        None, "Sampling", "Frequency penalty", "The same, for each time that it has them.", ge=-2, le=2
    )
    repetition_penalty: float | None = parameter(
        None, "Sampling", "Repetition penalty", "Divides the logits of tokens in prompt and answer; 1 for none.",
        gt=0, le=10,
    )  # fmt: skip
    stop: Stops = parameter(
        (), "Sampling", "Stop", "Texts that end an answer, and are no part of it.", metavar="TEXT"
    )  # fmt: skip
    reasoning_effort: str | None = parameter(
        None, "Sampling", "Reasoning effort", "How long a thinking model thinks: none, low, medium, high, ...",
        metavar="EFFORT", min_length=1, max_length=64,
    )  # fmt: skip
    chat_template_kwargs: ChatTemplateArguments = parameter(
        {}, "Sampling", "Chat template arguments",
        "JSON object that the server gives the model's chat template, as in '{\"enable_thinking\": false}'.",
        metavar="JSON",
    )  # fmt: skip
    extra_body: ExtraBody = parameter(
        {}, "Sampling", "Extra body", "JSON object of what else every request says, as in '{\"min_tokens\": 8}'.",
        metavar="JSON",
    )  # fmt: skip

    @field_validator("stop", mode="before")
    @classmethod
    def _one_text_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @property
    def given(self) -> frozenset[str]:
        """Return the names of the parameters that were given a value.

        Prefect's form sends all parameters, at their defaults where nobody touched them: such a one is not given.
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
    """How the policy samples."""

    temperature: float = parameter(1.0, "Sampling", "Temperature", "Sampling temperature.", ge=0, le=10)
    top_p: float = parameter(1.0, "Sampling", "Top p", "Nucleus of the sampling.", gt=0, le=1)
    max_tokens: int = parameter(2048, "Sampling", "Max tokens", "Longest completion, in tokens.", ge=1)
    seed: int = parameter(0, "Sampling", "Seed", "Seed of the run; every rollout's own seed follows from it.", ge=0)

    @property
    def sampling_of_flags(self) -> Sampling:
        """Return how the policy samples by these parameters alone."""
        names = ("temperature", "top_p", "max_tokens", "seed", *OPTIONS)
        return Sampling.model_validate({name: getattr(self, name) for name in names})

    def sampling_of(self, model: str, *, given: frozenset[str] = frozenset()) -> Sampling:
        """Return how a model samples, as part of a run's identity: with `--sampling model` as its files recommend.

        Raises `InputError` where there are no such files.

        Args:
            model: Directory or hub id.
            given: What is given for this model besides, and so stays.
        """
        if self.sampling == "flags":
            return self.sampling_of_flags
        return self.sampling_of_flags.with_recommended(recommended_sampling(model), self.given | given)


class ContextParameters(Parameters):
    """What of a model's earlier answers it is sent again."""

    drop_reasoning: bool = parameter(
        False, "Sampling", "Drop reasoning",
        "Send a model's earlier thoughts not again: for models and servers that want none in the conversation.",
    )  # fmt: skip


class RolloutCount(Parameters):
    """How many rollouts each problem gets."""

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
    """How many rollouts are made at a time."""

    concurrency: Concurrency = parameter(
        64, "Running", "Concurrency", f"Rollouts in flight, on every worker{AS_FOUND}.", metavar="N|auto"
    )


class PlacementParameters(Parameters):
    """Which processes make the rollouts; no part of what a run is."""

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
        "Processes here, each with servers and GPUs of its own; else this one, with one server.",
        ge=1,
    )

    @model_validator(mode="after")
    def _check_placement(self) -> Self:
        if self.cluster_block and self.gpu_workers:
            raise ValueError("give --cluster_block or --gpu_workers, not both: a cluster has workers of its own")
        return self

    @property
    def on_workers(self) -> bool:
        """Tell whether rollouts are made on workers, not in the job's own process."""
        return self.cluster_block is not None or self.gpu_workers is not None


class OutputParameters(Parameters):
    """Where logs and copies of the results go; no part of what a run is."""

    log_dir: NewPath = parameter("logs", "Running", "Log directory", "Where vLLM's log goes.", metavar="DIR")
    store_block: str | None = STORE_BLOCK


class ServedJobParameters(OutputParameters, PlacementParameters, ServerParameters):
    """Which servers a job asks, from which processes, and where their logs go."""

    @model_validator(mode="after")
    def _has_a_port_for_each_server(self) -> Self:
        if self.model_port is not None and not self.external and self.gpu_workers and self.gpu_workers > 1:
            raise ValueError(
                f"--model_port {self.model_port}: there are {self.gpu_workers} servers with --gpu_workers: leave it "
                "out, and each takes a free one"
            )
        return self
