"""Parameters of a training with evaluations before and after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from rollmill.config.file_parameters import STORE_BLOCK
from rollmill.config.form import Form
from rollmill.config.parameter import parameter
from rollmill.inference.adapter import RANKS
from rollmill.inference.machine import has_accelerator
from rollmill.jobs.evaluation.parameters import EvaluationParameters
from rollmill.jobs.training.parameters import TrainLora

if TYPE_CHECKING:
    from rollmill.jobs.rejection_sampling.parameters import RejectSampling
    from rollmill.jobs.training.manifest import Trained


class TrainAndEvaluate(Form, EvaluationParameters, TrainLora):
    """Train a LoRA adapter on conversations; with --held_out, evaluate before and after."""

    serve: Literal["auto", "adapter", "merged"] = parameter(
        "auto",
        "Evaluation",
        "Serve",
        "Evaluate the adapter on its base, or merged into it; auto: merged without a GPU, which is faster there.",
    )
    store_block: str | None = STORE_BLOCK

    @model_validator(mode="after")
    def _can_be_served(self) -> Self:
        if self.serve != "auto" and not self.use_lora:
            raise ValueError(
                "--serve: without --use_lora there is no adapter, the trained model is served: leave it out"
            )
        if self.serve == "adapter" and self.lora_r > RANKS[-1]:
            raise ValueError(f"--serve adapter: vLLM serves ranks up to {RANKS[-1]}: lower --lora_r, or --serve merged")
        return self

    @property
    def serves_adapter(self) -> bool:
        """True if the adapter itself is served in evaluation, not the base with the adapter merged into it."""
        if self.serve == "auto":
            return self.use_lora and has_accelerator() and self.lora_r <= RANKS[-1]
        return self.serve == "adapter"

    def training(self) -> TrainLora:
        """Return the training's parameters; it also merges the adapter where the merged model is evaluated."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in TrainLora.model_fields}
        merge = self.merge or (self.held_out is not None and self.use_lora and not self.serves_adapter)
        return TrainLora.model_validate({**shared, "merge": merge})

    def before(self) -> RejectSampling:
        """Return the run that evaluates the base."""
        return self.evaluation(self.model_path, str(Path(self.output_dir) / "before"))

    def after(self, trained: Trained) -> RejectSampling:
        """Return the run that evaluates the trained model."""
        folder = str(Path(self.output_dir) / "after")
        if self.serves_adapter:
            return self.evaluation(self.model_path, folder, adapter=str(trained.adapter))
        return self.evaluation(str(trained.merged or trained.directory), folder)
