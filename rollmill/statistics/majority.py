"""maj@k: how likely the answer that most of k rollouts give is right."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import ceil, comb
from typing import NamedTuple

import numpy as np

from rollmill.statistics.summary import Numbers

_MOST_EXACT = 64
_SUBSETS = 512
_NEARLY = 1e-12
_BINOMIALS = np.array([[float(comb(n, k)) for k in range(_MOST_EXACT + 1)] for n in range(_MOST_EXACT + 1)])


class Votes(NamedTuple):
    """The rollouts of a problem that give one answer."""

    rollouts: int
    right: float
    """Share of them that are right: 0 or 1 where the verdict depends on the answer alone."""


def majority_at_ks(votes: Sequence[Votes], blank: int, ks: Sequence[int]) -> list[float]:
    """Return maj@k for each k: the expectation over all subsets of k rollouts, ties split evenly.

    Self-consistency (Wang et al. 2022, arXiv:2203.11171), as the evaluation of Lewkowycz et al. 2022 (arXiv:2206.14858)
    counts it. Up to 64 rollouts the expectation is exact, from there it is that of 512 seeded subsets.

    Args:
        votes: The problem's answers.
        blank: Rollouts without an answer: they take a place among k, and do not vote.
        ks: Sizes of subsets, 1 to the number of rollouts.
    """
    if sum(group.rollouts for group in votes) + blank > _MOST_EXACT:
        answers = [index for index, group in enumerate(votes) for _ in range(group.rollouts)] + [None] * blank
        right = [group.right for group in votes for _ in range(group.rollouts)] + [0.0] * blank
        return [weighted_majority(answers, right, [1.0] * len(answers), k) for k in ks]
    return list(_exact(tuple(sorted(votes)), blank, tuple(ks)))


@lru_cache(maxsize=65536)
def _exact(votes: tuple[Votes, ...], blank: int, ks: tuple[int, ...]) -> tuple[float, ...]:
    """Count the subsets in which an answer wins with v votes, by the products of the answers' generating functions.

    A tie of t + 1 answers is won with probability 1 / (t + 1), the integral of u^t from 0 to 1: each of the others with
    v votes gets a factor u, and Gauss-Legendre nodes integrate that polynomial without an error.
    """
    most = max(ks)
    total = blank + sum(group.rollouts for group in votes)
    won = np.zeros(most + 1)
    for index, group in enumerate(votes):
        others = [other.rollouts for other in votes[:index] + votes[index + 1 :]]
        for v in range(1, min(group.rollouts, most) + 1 if group.right else 0):
            won[v:] += group.right * _BINOMIALS[group.rollouts, v] * _not_more(others, blank, v, most - v)
    return tuple(min(float(won[k] / _BINOMIALS[total, k]), 1.0) for k in ks)


def _not_more(others: Sequence[int], blank: int, v: int, size: int) -> Numbers:
    """Return, for 0 to `size` more rollouts, in how many ways no other answer has more than v votes; ties by share."""
    rivals = [count for count in others if count >= v]
    free = blank + sum(count for count in others if count < v)
    ties, weights = _nodes(max(1, ceil((min(len(rivals), size // v) + 1) / 2)))
    ways = np.tile(_BINOMIALS[free, : size + 1], (len(ties), 1))
    for count in rivals:
        grown = np.zeros_like(ways)
        for x in range(min(v, size) + 1):
            more = _BINOMIALS[count, x] * ways[:, : size + 1 - x]
            grown[:, x:] += more * ties[:, None] if x == v else more
        ways = grown
    result: Numbers = weights @ ways
    return result


@lru_cache(maxsize=_MOST_EXACT)
def _nodes(count: int) -> tuple[Numbers, Numbers]:
    """Return Gauss-Legendre nodes and weights for integrals from 0 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def weighted_majority(
    answers: Sequence[object], right: Sequence[float], weights: Sequence[float], k: int, *, seed: int = 0
) -> float:
    """Return how likely the answer with the greatest sum of weights among k rollouts is right; ties split evenly.

    Weighted best-of-N (Li et al. 2022, arXiv:2206.02336). Over all subsets of k rollouts where there are at most 512,
    over as many seeded ones otherwise.

    Args:
        answers: The answer of each rollout, equal for equal ones; None where there is none, which never wins.
        right: Whether it is right, 0 to 1.
        weights: The weight of its vote, from 0.
        k: Size of the subsets.
        seed: Of the subsets that are drawn.
    """
    names = {answer: place for place, answer in enumerate(dict.fromkeys(a for a in answers if a is not None))}
    if not names:
        return 0.0
    member = np.zeros((len(answers), len(names)))
    for index, answer in enumerate(answers):
        if answer is not None:
            member[index, names[answer]] = 1.0
    chosen = _subsets(len(answers), k, seed)
    given = chosen @ member
    totals = np.where(given > 0, chosen @ (member * np.asarray(weights)[:, None]), -1.0)
    best = totals.max(axis=1, keepdims=True)
    wins = (totals >= best - _NEARLY * np.abs(best)) & (given > 0)
    shares = (member.T @ np.asarray(right, dtype=np.float64)) / member.sum(axis=0)
    return float(np.mean(np.divide(wins @ shares, wins.sum(axis=1), out=np.zeros(len(wins)), where=wins.any(axis=1))))


@lru_cache(maxsize=256)
def _subsets(n: int, k: int, seed: int) -> Numbers:
    """Return subsets of k of n, a row of zeros and ones for each."""
    if comb(n, k) <= _SUBSETS:
        places = np.array(list(combinations(range(n), k)))
    else:
        places = np.random.default_rng(seed).random((_SUBSETS, n)).argsort(axis=1)[:, :k]
    chosen = np.zeros((len(places), n))
    np.put_along_axis(chosen, places, 1.0, axis=1)
    return chosen
