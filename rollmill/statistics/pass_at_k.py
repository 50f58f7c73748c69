"""pass@k, and best-of-k by a score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from n rollouts with c successes, 1 <= k <= n.

    1 - C(n-c, k) / C(n, k): Chen et al. 2021, arXiv:2107.03374, equation 1. The quotient is computed as a product of k
    factors, which avoids large integers.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    all_wrong = 1.0
    for i in range(k):
        all_wrong *= max(n - c - i, 0) / (n - i)
    return 1.0 - all_wrong


def ladder(num_rollout: int) -> list[int]:
    """Return the values of k to report: the powers of two below `num_rollout`, and `num_rollout` itself."""
    steps = [1 << i for i in range(num_rollout.bit_length()) if 1 << i < num_rollout]
    return [*steps, num_rollout]


def best_of_k(scores: Sequence[float], right: Sequence[bool], k: int) -> float:
    """Return the probability that the highest-scored of k rollouts is right, over all subsets of k rollouts.

    Best-of-N as in Stiennon et al. 2020, arXiv:2009.01325, with the exact expectation: the highest of a subset is among
    the j highest of all with the probability that the subset contains one of these, which is pass@k with c = j. Ties
    are broken uniformly.
    """
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    expected, before, seen = 0.0, 0.0, 0
    for _, group in groupby(order, key=scores.__getitem__):
        equals = list(group)
        seen += len(equals)
        meets = pass_at_k(len(scores), seen, k)
        expected += (meets - before) * sum(right[index] for index in equals) / len(equals)
        before = meets
    return min(max(expected, 0.0), 1.0)
