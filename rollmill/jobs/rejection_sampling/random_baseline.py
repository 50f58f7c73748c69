"""Baseline of guessing: the least error of answers drawn at random from the ground truths' own distribution."""

from __future__ import annotations

import math

import numpy as np
from pydantic import BaseModel, ConfigDict

from rollmill.statistics.summary import Numbers, summarize

_BUDGET = 100_000_000
"""Number of distances to compute, about two seconds; above it the baseline is that of a seeded sample of problems."""


class GuessBaseline(BaseModel):
    """Least error of guessing on the problems where the model has a least error."""

    model_config = ConfigDict(frozen=True)

    mean_least_error: float | None
    model_mean_least_error: float | None
    """The model's mean least error on the same problems."""
    problems: int = 0
    sampled: int = 0
    """Number of problems that the expectation was computed for: fewer than `problems` where there are very many."""
    reason: str | None = None
    """The reason why there is no baseline; None where there is one."""


def least_error_of_guesses(truth: float, draws: int, values: Numbers, weights: Numbers) -> float:
    """Return E[min of |truth - g|] over `draws` independent guesses g from an empirical distribution; exact.

    With distances d_1 <= ... <= d_m: d_1 + sum over j of (d_{j+1} - d_j) * P(g farther than d_j)^draws.

    Args:
        truth: The problem's ground truth.
        draws: Number of guesses.
        values: Distinct values of the distribution, ascending.
        weights: Probability of each value; they add up to 1.
    """
    distances = np.abs(values - truth)
    order = np.argsort(distances, kind="stable")  # two ascending runs: a merge, not a sort
    distances = distances[order]
    farther = 1.0 - np.cumsum(weights[order])
    return float(distances[0] + np.dot(np.diff(distances), np.clip(farther[:-1], 0.0, 1.0) ** draws))


def guess_baseline(truths: Numbers, targets: Numbers, draws: Numbers, least_errors: Numbers) -> GuessBaseline:
    """Return the baseline of guessing on the problems where the model has a least error.

    Exact, in O(n log n) for each distinct (target, draws); above a fixed amount of work over a seeded sample of these.

    Args:
        truths: Ground truths of all problems, from which guesses are drawn.
        targets: Ground truth of each problem.
        draws: Number of judged rollouts of each problem, which is also the number of guesses.
        least_errors: The model's least error on each problem.
    """
    if targets.size == 0:
        return GuessBaseline(mean_least_error=None, model_mean_least_error=None, reason="no problem has a least error")
    values, counts = np.unique(truths, return_counts=True)
    weights = counts / truths.size
    # Problems with the same ground truth and number of guesses have the same expectation.
    pairs, times = np.unique(np.stack([targets, draws], axis=1), axis=0, return_counts=True)
    limit = max(100, _BUDGET // values.size)
    if len(pairs) > limit:
        chosen = np.random.default_rng(0).choice(len(pairs), limit, replace=False)
        pairs, times = pairs[chosen], times[chosen]
    expected = np.array([least_error_of_guesses(float(t), int(n), values, weights) for t, n in pairs])
    result = float(np.average(expected, weights=times))
    if not math.isfinite(result):
        reason = "the ground truths are too large to subtract"
        return GuessBaseline(mean_least_error=None, model_mean_least_error=None, reason=reason)
    model = summarize(least_errors)
    return GuessBaseline(
        mean_least_error=result,
        model_mean_least_error=model.mean if model else None,
        problems=targets.size,
        sampled=int(times.sum()),
    )
