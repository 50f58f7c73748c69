"""pass@k: how likely k rollouts hold at least one success."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import fsum

from pydantic import BaseModel, ConfigDict


class PassAtK(BaseModel):
    """The mean of pass@k over the problems with at least k judged rollouts."""

    model_config = ConfigDict(frozen=True)

    k: int
    value: float | None
    """None where no problem has k judged rollouts."""
    problems: int
    left_out: int
    """Problems with fewer than k judged rollouts."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of pass@k from n rollouts with c successes, 1 <= k <= n.

    1 - C(n-c, k) / C(n, k): Chen et al. 2021, arXiv:2107.03374, equation 1. The quotient is a product of k factors,
    so no large number appears.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    all_wrong = 1.0
    for i in range(k):
        all_wrong *= max(n - c - i, 0) / (n - i)
    return 1.0 - all_wrong


def ladder(num_rollout: int) -> list[int]:
    """1, 2, 4, ... and `num_rollout` itself."""
    steps = [1 << i for i in range(num_rollout.bit_length()) if 1 << i < num_rollout]
    return [*steps, num_rollout]


def pass_at_ks(judged: Iterable[tuple[int, int]], num_rollout: int) -> list[PassAtK]:
    """pass@k for every rung of the ladder; `judged` holds (rollouts, successes) of each problem."""
    pairs = Counter(judged)
    rungs = []
    for k in ladder(num_rollout):
        enough = [(n, c, times) for (n, c), times in pairs.items() if n >= k]
        problems = sum(times for _, _, times in enough)
        total = fsum(pass_at_k(n, c, k) * times for n, c, times in enough)
        value = min(total / problems, 1.0) if problems else None
        rungs.append(PassAtK(k=k, value=value, problems=problems, left_out=pairs.total() - problems))
    return rungs
