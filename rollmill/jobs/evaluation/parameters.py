"""Parameters of evaluating a policy on held-out problems."""

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
"""Name of an evaluation's run directory, in the folder of the evaluation."""


class EvaluationPlacement(PlacementParameters):
    """Cluster and processes for training and evaluation: not part of the run's identity."""

    cluster_block: str | None = redefine(
        PlacementParameters,
        "cluster_block",
        None,
        group="Hardware",
        description="Name of a dask-cluster block: a worker with --num_gpus GPUs trains, all workers make rollouts.",
    )
    gpu_workers: int | None = redefine(
        PlacementParameters,
        "gpu_workers",
        None,
        group="Hardware",
        description="Processes on this machine that make rollouts, each with its own server; else one, on one GPU.",
    )


class EvaluationPrompting(SamplingOptions, PromptingParameters, ImageParameters, VerificationParameters):
    """Prompts and verification, the same in evaluations and in rollouts."""

    image_folders: list[str] = redefine(ImageParameters, "image_folders", [], group="Evaluation")
    max_tokens: int = redefine(SamplingParameters, "max_tokens", 2048)


class EvaluationServer(ConcurrencyParameters, OwnServerParameters):
    """Start of vLLM, and the number of requests in flight."""

    concurrency: Concurrency = redefine(
        ConcurrencyParameters,
        "concurrency",
        64,
        group="Server",
        description=f"Most requests in flight, on every worker{AS_FOUND}.",
        aliases=("slots",),
    )
    log_dir: NewPath = redefine(
        OutputParameters, "log_dir", "logs", group="Output", description="Folder of vLLM's logs."
    )


class EvaluationParameters(EvaluationPlacement, EvaluationServer, EvaluationPrompting):
    """Held-out problems, and rollouts per problem."""

    if TYPE_CHECKING:
        model_path: str

    held_out: str | None = parameter(
        None, "Evaluation", "Held-out problems", "Problems to evaluate on: hub id, directory or file, as for --dataset."
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
            folder: The folder in which the run's directory is created.
            few_shot: File of examples to put before the question; None for none.
            adapter: Directory of a LoRA adapter to serve on the model; None for none.
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
            "record_tokens": False,  # evaluations are never trained on
        }
        return HeldOutSampling.model_validate(settings | self.shared_with_rollouts() | self._recommended("temperature"))

    def _recommended(self, *decided: str) -> dict[str, Any]:
        """Return the base's recommended sampling parameters, without those `decided`; none with `--sampling flags`.

        The base's for all models of a comparison, whatever their own `generation_config.json` recommend, so that they
        sample alike. Raises `InputError`.
        """
        if self.sampling == "flags":
            return {}
        values = recommended_sampling(self.model_path)
        kept = self.set_names | frozenset(decided)
        return {"sampling": "flags"} | {name: value for name, value in values.items() if name not in kept}

    def shared_with_rollouts(self) -> dict[str, object]:
        """Return the parameters that generating and evaluating runs share."""
        models = (EvaluationPrompting, EvaluationServer, EvaluationPlacement)
        names = [name for model in models for name in model.model_fields if name != "concurrency"]
        return {name: getattr(self, name) for name in names} | {"no_canary": True}
