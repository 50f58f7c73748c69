"""How a policy is evaluated on held-out problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from rollmill.config.file_parameters import image_folders_field
from rollmill.config.names import NewPath
from rollmill.config.parameter import Parameters, parameter
from rollmill.generation.parameters import check_places
from rollmill.jobs.training.parameters import Placing

if TYPE_CHECKING:
    from rollmill.jobs.rejection_sampling.parameters import RejectSampling

NAME = "evaluation"
"""Of the run directory, inside the folder that an evaluation is given."""


class Verifying(Parameters):
    """How completions are judged, and how problems are asked."""

    verifier: str = parameter(
        "numeric", "Verification", "Verifier", "numeric, exact, math, reasoning_gym, or the dotted path of one's own."
    )
    accept_error: float = parameter(
        0.0, "Verification", "Accepted error", "A rollout is right when its error is at most this.", ge=0
    )
    prompt_template: str | None = parameter(
        None, "Prompt", "Prompt template", "Text, or a file of it, with {prompt} and other {columns}."
    )
    image_folders: list[str] = image_folders_field("Evaluation")
    system_prompt: str | None = parameter(None, "Prompt", "System prompt", "Text of a system message.")
    max_tokens: int = parameter(2048, "Sampling", "Max tokens", "Longest completion, in tokens.", ge=1)


class Serving(Parameters):
    """How vLLM is started, and how much is asked of it at a time."""

    server_block: str | None = parameter(
        None, "Server", "Server block", "Name of a vllm-server block: how this machine starts vLLM.", metavar="BLOCK"
    )
    vllm_args: str = parameter(
        "", "Server", "vLLM arguments", "More arguments for vLLM, as in a shell, in one string.", metavar="ARGS"
    )
    slots: int = parameter(
        64, "Server", "Requests in flight", "Requests in flight at most, on every worker.", ge=1, le=65536
    )
    log_dir: NewPath = parameter("logs", "Output", "Log directory", "Where vLLM's logs go.", metavar="DIR")


class Evaluating(Placing, Serving, Verifying):
    """On which problems, and how often each."""

    held_out: str | None = parameter(
        None, "Evaluation", "Held-out problems", "Problems to evaluate on, from where --dataset takes them."
    )
    held_out_split: str = parameter("test", "Evaluation", "Held-out split", "Split of a hub or directory data set.")
    max_held_out: int | None = parameter(None, "Evaluation", "Most held-out", "Only the first so many problems.", ge=1)
    eval_num_rollout: int = parameter(1, "Evaluation", "Rollouts per problem", "Rollouts per held-out problem.", ge=1)
    eval_temperature: float = parameter(0.0, "Evaluation", "Temperature", "0 for greedy decoding.", ge=0, le=10)

    @model_validator(mode="after")
    def _several_need_chance(self) -> Self:
        if self.eval_num_rollout > 1 and self.eval_temperature == 0:
            raise ValueError(
                "--eval_num_rollout above 1 repeats itself at --eval_temperature 0: raise one, or lower one"
            )
        return self

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        check_places(cluster_block=self.cluster_block, gpu_workers=self.gpu_workers, own_port=None)
        return self

    def evaluation(
        self, model: str, folder: str, *, few_shot: str | None = None, adapter: str | None = None
    ) -> RejectSampling:
        """The run that evaluates a model, or an adapter on it; its directory is `<folder>/evaluation`."""
        from rollmill.jobs.rejection_sampling.parameters import RejectSampling

        own = {
            "model_path": [model],
            "model_name": [NAME],
            "adapter": [adapter] if adapter else [],
            "dataset": self.held_out,
            "dataset_split": self.held_out_split,
            "max_data": self.max_held_out,
            "few_shot": few_shot,
            "num_rollout": self.eval_num_rollout,
            "temperature": self.eval_temperature,
            "concurrency": max(1, self.slots // self.eval_num_rollout),
            "output_dir": folder,
        }
        return RejectSampling.model_validate(own | self.asking())

    def asking(self) -> dict[str, object]:
        """What a run that generates shares with one that evaluates."""
        shared = [*Verifying.model_fields, *(name for name in Serving.model_fields if name != "slots")]
        return {name: getattr(self, name) for name in (*shared, *Placing.model_fields)} | {"no_canary": True}
