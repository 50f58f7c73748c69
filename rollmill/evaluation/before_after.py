"""A trained model beside its base, on the same held-out problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from rollmill.corpus.corpus import read_corpus
from rollmill.evaluation.accuracy import Accuracy, Difference, accuracy, paired_difference
from rollmill.evaluation.parameters import NAME, Evaluating
from rollmill.files.whole import write_bytes_whole, write_json_whole
from rollmill.plots.improvement import Mark, draw_improvement
from rollmill.rejection.parameters import RejectSampling
from rollmill.training.manifest import Trained
from rollmill.training.parameters import TrainLora


class TrainAndEvaluate(Evaluating, TrainLora):
    """Train a LoRA adapter on conversations; with --held_out, evaluate before and after."""

    def training(self) -> TrainLora:
        """The part that trains; what is to be evaluated is merged, since that is how it is served."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in TrainLora.model_fields}
        merge = self.merge or (self.held_out is not None and self.use_lora)
        return TrainLora.model_validate({**shared, "merge": merge})

    def before(self) -> RejectSampling:
        """The run that evaluates the base."""
        return self.evaluation(self.model_path, str(Path(self.output_dir) / "before"))

    def after(self, trained: Trained) -> RejectSampling:
        """The run that evaluates what was trained."""
        return self.evaluation(str(trained.merged or trained.directory), str(Path(self.output_dir) / "after"))


class BeforeAfter(NamedTuple):
    """Both accuracies, their paired difference, and the picture."""

    before: Accuracy
    after: Accuracy
    difference: Difference
    picture: Path

    def rows(self) -> list[dict[str, str]]:
        """A row of text for each, and for the difference."""
        return [
            {"": name, "held-out": f"{one.mean:.1%}", "95% interval": f"{one.low:.1%} to {one.high:.1%}"}
            for name, one in (("before", self.before), ("after", self.after), ("difference", self.difference))
        ]


def compare_before_after(directory: Path) -> BeforeAfter:
    """Reads both evaluations of a training's directory, and leaves `evaluation.json` and `evaluation.png` in it."""
    before, after = (read_corpus([str(directory / side / NAME)]).table for side in ("before", "after"))
    found = BeforeAfter(
        accuracy(before), accuracy(after), paired_difference(before, after), directory / "evaluation.png"
    )
    marks = [
        Mark(name, one.mean, one.low, one.high, True)
        for name, one in (("before", found.before), ("after", found.after))
    ]
    subtitle = f"{found.difference.problems:,} held-out problems, 95% intervals over problems"
    write_bytes_whole(found.picture, draw_improvement(marks, title=directory.resolve().name, subtitle=subtitle))
    numbers = {name: getattr(found, name).model_dump() for name in ("before", "after", "difference")}
    write_json_whole(directory / "evaluation.json", numbers)
    return found
