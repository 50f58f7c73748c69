"""maj@k: the probability that the most frequent answer among k rollouts is right."""

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
"""Relative difference below which sums of weights are a tie."""
_BINOMIALS = np.array([[float(comb(n, k)) for k in range(_MOST_EXACT + 1)] for n in range(_MOST_EXACT + 1)])


class Votes(NamedTuple):
    """The rollouts of a problem that give the same answer."""

    rollouts: int
    right: float
    """Share of them that are right; 0 or 1 where the verdict depends on the answer alone."""


def majority_at_ks(votes: Sequence[Votes], blank: int, ks: Sequence[int]) -> list[float]:
    """Return maj@k for each k: the expectation over all subsets of k rollouts, ties split evenly.

    Self-consistency (Wang et al. 2022, arXiv:2203.11171), as the evaluation of Lewkowycz et al. 2022 (arXiv:2206.14858)
    counts it. The expectation is exact up to 64 rollouts; for more it is the mean over 512 seeded subsets.

    Args:
        votes: One entry per distinct answer.
        blank: Number of rollouts without an answer: they count among the k and do not vote.
        ks: Sizes of subsets, 1 to the number of rollouts.
    """
    if sum(group.rollouts for group in votes) + blank > _MOST_EXACT:
        answers = [index for index, group in enumerate(votes) for _ in range(group.rollouts)] + [None] * blank
        right = [group.right for group in votes for _ in range(group.rollouts)] + [0.0] * blank
        return [weighted_majority(answers, right, [1.0] * len(answers), k) for k in ks]
    return list(_exact(tuple(sorted(votes)), blank, tuple(ks)))


@lru_cache(maxsize=65536)
def _exact(votes: tuple[Votes, ...], blank: int, ks: tuple[int, ...]) -> tuple[float, ...]:
    """Return exact maj@k for each k, by products of the answers' generating functions.

    Counts the subsets in which an answer wins with v votes. An answer wins a tie of t + 1 answers with probability
    1 / (t + 1), which is the integral of u^t from 0 to 1: each other answer with v votes contributes a factor u, and
    Gauss-Legendre quadrature integrates the resulting polynomial exactly.
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
    """Count the ways to choose the other rollouts of a subset so that no other answer has more than v votes.

    Args:
        others: Number of rollouts of each other answer.
        blank: Number of rollouts without an answer.
        v: Votes of the winning answer; a tie with t others counts 1 / (t + 1).
        size: Largest number of rollouts to choose. The result has an entry for each number from 0 to `size`.
    """
    # Answers with fewer than v rollouts can never tie, so they count together with the blank ones.
    rivals = [count for count in others if count >= v]
    free = blank + sum(count for count in others if count < v)
    # A polynomial of degree d needs ceil((d + 1) / 2) nodes, and at most size // v rivals can tie.
    ties, weights = _nodes(max(1, ceil((min(len(rivals), size // v) + 1) / 2)))
    ways = np.tile(_BINOMIALS[free, : size + 1], (len(ties), 1))
    # `ways[i, s]` holds, at node i, the coefficient for s chosen rollouts; each rival multiplies a polynomial in.
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
    """Return the probability that the answer with the greatest sum of weights among k rollouts is right.

    Weighted best-of-N (Li et al. 2022, arXiv:2206.02336); ties split evenly. The mean is over all subsets of k rollouts
    if there are at most 512, else over 512 seeded ones.

    Args:
        answers: Hashable answer of each rollout; None where there is none, which never wins.
        right: Whether each answer is right, from 0 to 1.
        weights: Weight of each vote, at least 0.
        k: Size of the subsets.
        seed: Seed of the sampled subsets.
    """
    columns = {answer: column for column, answer in enumerate(dict.fromkeys(a for a in answers if a is not None))}
    if not columns:
        return 0.0
    member = np.zeros((len(answers), len(columns)))  # [rollouts, answers]
    for index, answer in enumerate(answers):
        if answer is not None:
            member[index, columns[answer]] = 1.0
    chosen = _subsets(len(answers), k, seed)
    votes = chosen @ member  # [subsets, answers]
    # An answer that is not in the subset must not tie with one whose weights sum to 0.
    totals = np.where(votes > 0, chosen @ (member * np.asarray(weights)[:, None]), -1.0)
    best = totals.max(axis=1, keepdims=True)
    wins = (totals >= best - _NEARLY * np.abs(best)) & (votes > 0)
    shares = (member.T @ np.asarray(right, dtype=np.float64)) / member.sum(axis=0)
    return float(np.mean(np.divide(wins @ shares, wins.sum(axis=1), out=np.zeros(len(wins)), where=wins.any(axis=1))))


@lru_cache(maxsize=256)
def _subsets(n: int, k: int, seed: int) -> Numbers:
    """Return subsets of k of n as a [subsets, n] matrix of zeros and ones."""
    if comb(n, k) <= _SUBSETS:
        indices = np.array(list(combinations(range(n), k)))
    else:
        # The first k of a random permutation are a uniform subset.
        indices = np.random.default_rng(seed).random((_SUBSETS, n)).argsort(axis=1)[:, :k]
    chosen = np.zeros((len(indices), n))
    np.put_along_axis(chosen, indices, 1.0, axis=1)
    return chosen
