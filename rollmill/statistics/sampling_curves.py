"""Curves over k: pass@k, maj@k and best-of-k, for each way to choose one answer of k rollouts."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from rollmill.statistics.intervals import share_intervals
from rollmill.statistics.majority import Votes, majority_at_ks, weighted_majority
from rollmill.statistics.pass_at_k import best_of_k, ladder, pass_at_k
from rollmill.statistics.summary import Numbers

ANY_RIGHT = "pass@k"
MAJORITY = "maj@k"
LIKELIEST = "best of k by log-probability"
LIKELY_MAJORITY = "maj@k weighted by probability"
BEST_REWARD = "best of k by reward"
REWARD_MAJORITY = "maj@k weighted by reward"


class Attempt(NamedTuple):
    """A judged rollout."""

    right: bool
    answer: str | None = None
    """Equal texts for equivalent answers; None where the rollout has no vote."""
    reward: float | None = None
    logprob: float | None = None
    """Mean logprob of the sampled tokens, in nats per token; None where it is not recorded."""


class CurvePoint(BaseModel):
    """Mean at one k over the problems with at least k judged rollouts, from 0 to 1, and its 95% interval."""

    model_config = ConfigDict(frozen=True)

    k: int
    value: float | None
    """None where no problem has k judged rollouts."""
    low: float | None = None
    high: float | None = None
    """End of the interval, by a bootstrap over problems; see `share_intervals`."""
    problems: int
    left_out: int
    """Problems with fewer than k judged rollouts."""


class SamplingCurve(BaseModel):
    """The values of one way of choosing, for every k."""

    model_config = ConfigDict(frozen=True)

    name: str
    points: list[CurvePoint]


class CurveTally:
    """Accumulates the curves problem by problem. It keeps a few numbers per problem and no text."""

    def __init__(self, num_rollout: int) -> None:
        self.ks = ladder(num_rollout)
        self._values: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._problems = 0
        self._votes = False
        # True once a reward differs from success; otherwise choosing by reward is choosing by the ground truth.
        self._graded = False

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Count one problem with its judged rollouts."""
        self._problems += 1
        ks = [k for k in self.ks if k <= len(attempts)]
        self._votes |= any(attempt.answer is not None for attempt in attempts)
        self._graded |= any(attempt.reward not in (None, float(attempt.right)) for attempt in attempts)
        for name, values in _values(attempts, ks).items():
            column = self._values[name]
            # A curve may begin at a later problem, and a problem may have fewer than k rollouts: NaN for both.
            column.extend([math.nan] * ((self._problems - 1) * len(self.ks) - len(column)))
            column.extend([*values, *[math.nan] * (len(self.ks) - len(values))])

    def curves(self) -> list[SamplingCurve]:
        """Return the curves that the rollouts have data for, pass@k first."""
        names = list(self._names())
        tables = [self._table(name) for name in names]
        intervals = share_intervals(np.hstack(tables))
        step = len(self.ks)
        return [
            SamplingCurve(name=name, points=self._points(table, intervals[index * step : (index + 1) * step]))
            for index, (name, table) in enumerate(zip(names, tables, strict=True))
        ]

    def _names(self) -> Iterator[str]:
        yield ANY_RIGHT
        for name, allowed in (
            (MAJORITY, self._votes),
            (LIKELIEST, True),
            (LIKELY_MAJORITY, self._votes),
            (BEST_REWARD, self._graded),
            (REWARD_MAJORITY, self._graded and self._votes),
        ):
            if allowed and not np.isnan(self._table(name)).all():
                yield name

    def _table(self, name: str) -> Numbers:
        column = self._values[name]
        missing = [math.nan] * (self._problems * len(self.ks) - len(column))
        return np.array([*column, *missing], dtype=np.float64).reshape(self._problems, len(self.ks))

    def _points(self, table: Numbers, intervals: Sequence[tuple[float, float] | None]) -> list[CurvePoint]:
        points = []
        for column, (k, interval) in enumerate(zip(self.ks, intervals, strict=True)):
            known = table[~np.isnan(table[:, column]), column]
            low, high = interval or (None, None)
            value = min(math.fsum(known) / len(known), 1.0) if len(known) else None
            left_out = self._problems - len(known)
            points.append(CurvePoint(k=k, value=value, low=low, high=high, problems=len(known), left_out=left_out))
        return points


def _values(attempts: Sequence[Attempt], ks: Sequence[int]) -> dict[str, list[float]]:
    """Return one problem's value of each curve, at each k for which it has enough rollouts."""
    if not ks:
        return {}
    right = [attempt.right for attempt in attempts]
    answers = [attempt.answer for attempt in attempts]
    values = {ANY_RIGHT: [pass_at_k(len(right), sum(right), k) for k in ks], MAJORITY: _majority(attempts, ks)}
    logprobs = [attempt.logprob for attempt in attempts if attempt.logprob is not None]
    if len(logprobs) == len(attempts):
        values[LIKELIEST] = [best_of_k(logprobs, right, k) for k in ks]
        weights = [math.exp(min(logprob, 0.0)) for logprob in logprobs]
        values[LIKELY_MAJORITY] = [weighted_majority(answers, right, weights, k) for k in ks]
    rewards = [attempt.reward for attempt in attempts if attempt.reward is not None]
    if len(rewards) == len(attempts):
        # Most rewards equal success; then best-of-k by reward is pass@k, which is faster to compute.
        plain = rewards == [float(attempt.right and attempt.answer is not None) for attempt in attempts]
        weights = [max(reward, 0.0) for reward in rewards]
        values[BEST_REWARD] = values[ANY_RIGHT] if plain else [best_of_k(rewards, right, k) for k in ks]
        values[REWARD_MAJORITY] = (
            values[ANY_RIGHT] if plain else [weighted_majority(answers, right, weights, k) for k in ks]
        )
    return values


def _majority(attempts: Sequence[Attempt], ks: Sequence[int]) -> list[float]:
    groups: defaultdict[str, list[bool]] = defaultdict(list)
    for attempt in attempts:
        if attempt.answer is not None:
            groups[attempt.answer].append(attempt.right)
    votes = [Votes(len(group), sum(group) / len(group)) for group in groups.values()]
    return majority_at_ks(votes, len(attempts) - sum(group.rollouts for group in votes), ks)
