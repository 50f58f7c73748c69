"""Compares a trained model with its base, on the same held-out problems."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rollmill.corpus.corpus import read_corpus
from rollmill.files.atomic import atomic_write_bytes, atomic_write_json
from rollmill.jobs.evaluation.parameters import NAME
from rollmill.reports.plots.improvement import Mark, draw_improvement
from rollmill.statistics.accuracy import Accuracy, Difference, accuracy, paired_difference

SIDES = ("before", "after")
"""The folders of both evaluations."""
NUMBERS = "evaluation.json"


class BeforeAfter(NamedTuple):
    """Both accuracies, their paired difference, and the plot."""

    before: Accuracy
    after: Accuracy
    difference: Difference
    picture: Path

    @property
    def directory(self) -> Path:
        """The training's directory."""
        return self.picture.parent

    @property
    def files(self) -> dict[str, Path]:
        """The files that were written, by their content."""
        numbers = {"numbers": self.directory / NUMBERS, "picture": self.picture}
        return numbers | {side: self.directory / side for side in SIDES}

    def rows(self) -> list[dict[str, str]]:
        """Return a row of text for each accuracy, and for the difference."""
        return [
            {"": name, "held-out": f"{interval.mean:.1%}", "95% interval": f"{interval.low:.1%} to {interval.high:.1%}"}
            for name, interval in (("before", self.before), ("after", self.after), ("difference", self.difference))
        ]


def compare_before_after(directory: Path) -> BeforeAfter:
    """Read both evaluations of a training's directory; write `evaluation.json` and `evaluation.png` into it."""
    before, after = (read_corpus([str(directory / side / NAME)]).table for side in SIDES)
    comparison = BeforeAfter(
        accuracy(before), accuracy(after), paired_difference(before, after), directory / "evaluation.png"
    )
    marks = [
        Mark(name, interval.mean, interval.low, interval.high, True)
        for name, interval in zip(SIDES, (comparison.before, comparison.after), strict=True)
    ]
    subtitle = f"{comparison.difference.problems:,} held-out problems, 95% intervals over problems"
    atomic_write_bytes(comparison.picture, draw_improvement(marks, title=directory.resolve().name, subtitle=subtitle))
    numbers = {name: getattr(comparison, name).model_dump() for name in ("before", "after", "difference")}
    atomic_write_json(directory / NUMBERS, numbers)
    return comparison
