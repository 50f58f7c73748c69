"""Train and validation split by problem: the rollouts of a problem are all on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import orjson

from rollmill.errors import InputError

TRAIN = "train"
VALIDATION = "validation"


@dataclass(frozen=True)
class Split:
    """A share of the problems, 0 < share < 1, that is used for validation; the seed selects them."""

    validation_share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise InputError(
                f"validation share {self.validation_share} is not between 0 and 1: give a share such as 0.05"
            )

    def validation(self, problems: Iterable[str], train: Set[str] = frozenset()) -> frozenset[str]:
        """Return the problems for validation: those whose hash falls into the share, independent of the other problems.

        Of two problems or more at least one is on each side: without any below the share, the problem with the least
        hash is for validation; with all below it, the one with the greatest is for training.

        Args:
            problems: all problems.
            train: problems that have to be on the train side, unless validation would be empty without them.
        """
        fractions = {problem: self._fraction(problem) for problem in problems}
        if len(fractions) < 2:
            return frozenset()
        ordered = sorted(fractions, key=lambda problem: (problem in train, fractions[problem], problem))
        # At most all but one: the train side needs a problem, too.
        chosen = [problem for problem in ordered if fractions[problem] < self.validation_share and problem not in train]
        return frozenset(chosen[: len(fractions) - 1] or ordered[:1])

    def _fraction(self, problem: str) -> float:
        """Return a number in [0, 1), determined by seed and problem."""
        digest = hashlib.sha256(orjson.dumps([self.seed, problem])).digest()
        return int.from_bytes(digest[:6], "big") / (1 << 48)


def check_disjoint(problems: Mapping[str, set[str]]) -> None:
    """Raise `RuntimeError` where a problem is on both sides: a bug in rollmill."""
    both = problems.get(TRAIN, set()) & problems.get(VALIDATION, set())
    if both:
        raise RuntimeError(f"a problem is in both train and validation, a bug in rollmill: {min(both)!r}")
