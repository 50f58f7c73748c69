"""Paired comparison of two sets of rollouts on the same problems: the difference, and the problems that flipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import polars as pl

from rollmill.reports.plots.labels import counted, one_line
from rollmill.statistics.accuracy import FEWEST, Difference, paired_difference

_SHOWN = 10

Flip = Literal["solved", "unsolved"]


class PairedProblem(NamedTuple):
    """A problem that both sets were judged on, with the numbers of right and of judged rollouts in each."""

    instance_id: str
    right_before: int
    judged_before: int
    right_after: int
    judged_after: int

    @property
    def flip(self) -> Flip | None:
        """Return `solved` if only the second set has a right rollout, `unsolved` if only the first has one."""
        if bool(self.right_before) == bool(self.right_after):
            return None
        return "solved" if self.right_after else "unsolved"

    @property
    def gain(self) -> float:
        """Return the increase of the share of right rollouts."""
        return self.right_after / self.judged_after - self.right_before / self.judged_before

    def __str__(self) -> str:
        """Return the problem with its counts: `p3 (0 of 4, now 3 of 4)`."""
        counts = f"{self.right_before} of {self.judged_before}, now {self.right_after} of {self.judged_after}"
        return f"{one_line(self.instance_id)} ({counts})"

    def to_json(self, before: str, after: str) -> dict[str, Any]:
        """Return the problem as a row of a file, with the names of both sets."""
        return {"before": before, "after": after, **self._asdict(), "flip": self.flip}


class PairedComparison(NamedTuple):
    """The second set compared with the first, on problems judged in both, in the order of the first."""

    before: str
    after: str
    problems: list[PairedProblem]
    difference: Difference | None
    """None where the sets have no problem in common."""

    def flipped(self, flip: Flip) -> list[PairedProblem]:
        """Return the problems with this flip, those with the largest change first."""
        return sorted((each for each in self.problems if each.flip == flip), key=lambda each: -abs(each.gain))

    def lines(self) -> list[str]:
        """Return the lines for the user."""
        title = f"{one_line(self.after)} against {one_line(self.before)}"
        if self.difference is None:
            return [f"{title}: they share no judged problem"]
        better = sum(problem.gain > 0 for problem in self.problems)
        worse = sum(problem.gain < 0 for problem in self.problems)
        equal = len(self.problems) - better - worse
        return [
            f"{title}, paired by problem, on {counted(len(self.problems), 'problem')} judged in both:",
            f"  success rate {_describe(self.difference)}",
            f"  better on {better:,}, worse on {worse:,}, equal on {equal:,}",
            f"  now solved: {_list_problems(self.flipped('solved'))}",
            f"  no longer solved: {_list_problems(self.flipped('unsolved'))}",
        ]


def compare_pair(before: tuple[str, pl.DataFrame], after: tuple[str, pl.DataFrame]) -> PairedComparison:
    """Compare two named tables of rollouts. Deterministic: the bootstrap of the interval has a fixed seed."""
    pairs = _counts(before[1]).join(_counts(after[1]), on="instance_id", suffix="_after", maintain_order="left")
    problems = [PairedProblem(*row) for row in pairs.iter_rows()]
    difference = paired_difference(before[1], after[1]) if problems else None
    return PairedComparison(before[0], after[0], problems, difference)


def compare_with_first(tables: Sequence[tuple[str, pl.DataFrame]]) -> Iterator[PairedComparison]:
    """Yield the comparison of each table with the first one."""
    for table in tables[1:]:
        yield compare_pair(tables[0], table)


def _counts(table: pl.DataFrame) -> pl.DataFrame:
    judged = table.filter(pl.col("success").is_not_null())
    return judged.group_by("instance_id", maintain_order=True).agg(
        pl.col("success").sum().cast(pl.Int64).alias("right"), pl.len().cast(pl.Int64).alias("judged")
    )


def _describe(difference: Difference) -> str:
    interval = f"95% interval {difference.low:+.1%} to {difference.high:+.1%}, by a bootstrap over problems"
    return f"{difference.mean:+.1%} ({interval}): {_judgement(difference)}"


def _judgement(difference: Difference) -> str:
    if difference.problems < FEWEST:
        return f"too few problems to tell, {FEWEST} are needed"
    if difference.better or difference.worse:
        return f"{'higher' if difference.better else 'lower'} beyond noise"
    return "within noise"


def _list_problems(problems: Sequence[PairedProblem]) -> str:
    if not problems:
        return "none"
    more = f", and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    return f"{len(problems):,}: {', '.join(map(str, problems[:_SHOWN]))}{more}"
