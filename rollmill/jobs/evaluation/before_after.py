"""A trained model beside its base, on the same held-out problems."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rollmill.corpus.corpus import read_corpus
from rollmill.files.atomic import atomic_write_bytes, atomic_write_json
from rollmill.jobs.evaluation.accuracy import Accuracy, Difference, accuracy, paired_difference
from rollmill.jobs.evaluation.parameters import NAME
from rollmill.reports.plots.improvement import Mark, draw_improvement

SIDES = ("before", "after")
"""The folders of both evaluations."""
NUMBERS = "evaluation.json"


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
    atomic_write_bytes(found.picture, draw_improvement(marks, title=directory.resolve().name, subtitle=subtitle))
    numbers = {name: getattr(found, name).model_dump() for name in ("before", "after", "difference")}
    atomic_write_json(directory / NUMBERS, numbers)
    return found
