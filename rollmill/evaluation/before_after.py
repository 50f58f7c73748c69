"""A trained model beside its base, on the same held-out problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import model_validator

from rollmill.corpus.corpus import read_corpus
from rollmill.evaluation.accuracy import Accuracy, Difference, accuracy, paired_difference
from rollmill.evaluation.parameters import NAME, Evaluating
from rollmill.files.parameters import STORE_BLOCK
from rollmill.files.whole import write_bytes_whole, write_json_whole
from rollmill.form import Form
from rollmill.parameter import parameter
from rollmill.plots.improvement import Mark, draw_improvement
from rollmill.rejection.parameters import RejectSampling
from rollmill.serving.adapter import RANKS
from rollmill.serving.machine import has_accelerator
from rollmill.training.manifest import Trained
from rollmill.training.parameters import TrainLora

SIDES = ("before", "after")
"""The folders of both evaluations."""
NUMBERS = "evaluation.json"


class TrainAndEvaluate(Form, Evaluating, TrainLora):
    """Train a LoRA adapter on conversations; with --held_out, evaluate before and after."""

    serve: Literal["auto", "adapter", "merged"] = parameter(
        "auto",
        "Evaluation",
        "Serve",
        "The adapter on its base, or merged into it; auto: merged where there is no GPU, which is faster there.",
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
        """Whether the adapter itself is evaluated, not the base with the adapter merged into it."""
        if self.serve == "auto":
            return self.use_lora and has_accelerator() and self.lora_r <= RANKS[-1]
        return self.serve == "adapter"

    def training(self) -> TrainLora:
        """The part that trains; it merges, too, where the merged model is what is evaluated."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in TrainLora.model_fields}
        merge = self.merge or (self.held_out is not None and self.use_lora and not self.serves_adapter)
        return TrainLora.model_validate({**shared, "merge": merge})

    def before(self) -> RejectSampling:
        """The run that evaluates the base."""
        return self.evaluation(self.model_path, str(Path(self.output_dir) / "before"))

    def after(self, trained: Trained) -> RejectSampling:
        """The run that evaluates what was trained."""
        folder = str(Path(self.output_dir) / "after")
        if self.serves_adapter:
            return self.evaluation(self.model_path, folder, adapter=str(trained.adapter))
        return self.evaluation(str(trained.merged or trained.directory), folder)


class BeforeAfter(NamedTuple):
    """Both accuracies, their paired difference, and the picture."""

    before: Accuracy
    after: Accuracy
    difference: Difference
    picture: Path

    @property
    def directory(self) -> Path:
        """The training's."""
        return self.picture.parent

    @property
    def files(self) -> dict[str, Path]:
        """What was written, by what it is."""
        numbers = {"numbers": self.directory / NUMBERS, "picture": self.picture}
        return numbers | {side: self.directory / side for side in SIDES}

    def rows(self) -> list[dict[str, str]]:
        """A row of text for each, and for the difference."""
        return [
            {"": name, "held-out": f"{one.mean:.1%}", "95% interval": f"{one.low:.1%} to {one.high:.1%}"}
            for name, one in (("before", self.before), ("after", self.after), ("difference", self.difference))
        ]


def compare_before_after(directory: Path) -> BeforeAfter:
    """Reads both evaluations of a training's directory, and leaves `evaluation.json` and `evaluation.png` in it."""
    before, after = (read_corpus([str(directory / side / NAME)]).table for side in SIDES)
    found = BeforeAfter(
        accuracy(before), accuracy(after), paired_difference(before, after), directory / "evaluation.png"
    )
    marks = [
        Mark(name, one.mean, one.low, one.high, True)
        for name, one in zip(SIDES, (found.before, found.after), strict=True)
    ]
    subtitle = f"{found.difference.problems:,} held-out problems, 95% intervals over problems"
    write_bytes_whole(found.picture, draw_improvement(marks, title=directory.resolve().name, subtitle=subtitle))
    numbers = {name: getattr(found, name).model_dump() for name in ("before", "after", "difference")}
    write_json_whole(directory / NUMBERS, numbers)
    return found
