"""How a policy is evaluated on held-out problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from rollmill.config.names import NewPath
from rollmill.config.parameter import parameter, redefine
from rollmill.generation.concurrency import AS_FOUND, Concurrency, problems_at_a_time
from rollmill.generation.parameters import (
    ConcurrencyParameters,
    OutputParameters,
    PlacementParameters,
    SamplingOptions,
    SamplingParameters,
)
from rollmill.inference.generation_config import recommended_sampling
from rollmill.inference.parameters import OwnServerParameters
from rollmill.problems.parameters import ImageParameters, PromptingParameters
from rollmill.verifiers.parameters import VerificationParameters

if TYPE_CHECKING:
    from rollmill.jobs.rejection_sampling.parameters import RejectSampling

NAME = "evaluation"
"""Of the run directory, inside the folder that an evaluation is given."""


class EvaluationPlacement(PlacementParameters):
    """Where it is trained, and evaluated: no part of what the run is."""

    cluster_block: str | None = redefine(
        PlacementParameters,
        "cluster_block",
        None,
        group="Hardware",
        description="Name of a dask-cluster block: a worker with --num_gpus GPUs trains, all of them make rollouts.",
    )
    gpu_workers: int | None = redefine(
        PlacementParameters,
        "gpu_workers",
        None,
        group="Hardware",
        description="Processes here that make rollouts, each with a server and GPUs of its own; else one server.",
    )


class EvaluationPrompting(SamplingOptions, PromptingParameters, ImageParameters, VerificationParameters):
    """How completions are judged, and how problems are asked, in evaluations and in rollouts alike."""

    image_folders: list[str] = redefine(ImageParameters, "image_folders", [], group="Evaluation")
    max_tokens: int = redefine(SamplingParameters, "max_tokens", 2048)


class EvaluationServer(ConcurrencyParameters, OwnServerParameters):
    """How vLLM is started, and how much is asked of it at a time."""

    concurrency: Concurrency = redefine(
        ConcurrencyParameters,
        "concurrency",
        64,
        group="Server",
        description=f"Requests in flight at most, on every worker{AS_FOUND}.",
        aliases=("slots",),
    )
    log_dir: NewPath = redefine(
        OutputParameters, "log_dir", "logs", group="Output", description="Where vLLM's logs go."
    )


class EvaluationParameters(EvaluationPlacement, EvaluationServer, EvaluationPrompting):
    """On which problems, and how often each."""

    if TYPE_CHECKING:
        model_path: str

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

    def evaluation(
        self, model: str, folder: str, *, few_shot: str | None = None, adapter: str | None = None
    ) -> RejectSampling:
        """Return the parameters of the run that evaluates a model; its directory is `<folder>/evaluation`.

        Args:
            model: Directory or hub id of the model.
            folder: The folder in which the run's directory is made.
            few_shot: File of examples to put before the question.
            adapter: Directory of a LoRA adapter to serve on the model.
        """
        from rollmill.jobs.rejection_sampling.parameters import HeldOutSampling

        settings = {
            "model_path": [model],
            "model_name": [NAME],
            "adapter": [adapter] if adapter else [],
            "dataset": self.held_out,
            "dataset_split": self.held_out_split,
            "max_problems": self.max_held_out,
            "few_shot": few_shot,
            "num_rollout": self.eval_num_rollout,
            "temperature": self.eval_temperature,
            "concurrent_problems": problems_at_a_time(self.concurrency, self.eval_num_rollout),
            "output_dir": folder,
            "record_tokens": False,  # nothing of an evaluation is trained on
        }
        return HeldOutSampling.model_validate(settings | self.shared_with_rollouts() | self._recommended("temperature"))

    def _recommended(self, *decided: str) -> dict[str, Any]:
        """Return parameters of sampling as the base recommends it, where that is wanted, but for those `decided`.

        All models of a comparison sample alike, whatever their own folders recommend. Raises `InputError`.
        """
        if self.sampling == "flags":
            return {}
        values = recommended_sampling(self.model_path)
        kept = self.given | frozenset(decided)
        return {"sampling": "flags"} | {name: value for name, value in values.items() if name not in kept}

    def shared_with_rollouts(self) -> dict[str, object]:
        """Return the parameters that a run which generates shares with one that evaluates."""
        models = (EvaluationPrompting, EvaluationServer, EvaluationPlacement)
        names = [name for model in models for name in model.model_fields if name != "concurrency"]
        return {name: getattr(self, name) for name in names} | {"no_canary": True}
