"""Measures the milliseconds to compute alpha for a batch of tokens, by method, against 20 bisection steps.

The pairs are like a policy and its tuned self: logits of standard deviation 3, and a difference of `--apart`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.jobs.optimal_sampling.alpha import METHODS, compute_alpha
from rollmill.jobs.optimal_sampling.mixture import kl, log_mixture

SHAPES = ((8, 49_152), (32, 151_936))
LEAST_TIMES_FASTER = 5
MOST_GAP = 1e-5


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of repetitions of each; the fastest counts")
    parser.add_argument("--apart", type=float, default=1.0, help="standard deviation of the difference of logits")
    options = parser.parse_args()
    where = machine()
    targets = Targets()
    for batch, vocabulary in SHAPES:
        logits = torch.randn(batch, vocabulary, generator=torch.Generator().manual_seed(0)) * 3
        other = logits + torch.randn(batch, vocabulary, generator=torch.Generator().manual_seed(1)) * options.apart
        theta, t = logits.log_softmax(-1), other.log_softmax(-1)
        ways: dict[str, Callable[[], Tensor]] = {
            name: partial(compute_alpha, theta, t, method=name) for name in METHODS
        }
        ways["20 steps of bisection"] = partial(bisected, theta, t)
        seconds = {name: fastest(way, options.seconds) for name, way in ways.items()}
        gaps = {name: gap(theta, t, way()) for name, way in ways.items()}
        rows = [
            {"method": name, "ms": f"{spent * 1e3:.2f}", "greatest |KL gap|": f"{gaps[name]:.1e}"}
            for name, spent in seconds.items()
        ]
        show(f"alpha_solver on {where}; {batch} x {vocabulary:,}", rows)
        faster = seconds["20 steps of bisection"] / seconds["kl_symmetry"]
        targets.at_least(f"kl_symmetry times faster than bisection, {batch} rows", faster, LEAST_TIMES_FASTER)
        targets.at_most(f"KL gap of kl_symmetry, {batch} rows", gaps["kl_symmetry"], MOST_GAP)
    targets.end(check=options.check)


def fastest(way: Callable[[], Tensor], seconds: float) -> float:
    """Return the fewest seconds of a call, since other processes use the machine, too."""
    spent: list[float] = []
    while len(spent) < 3 or sum(spent) < seconds:
        begun = time.perf_counter()
        way()
        spent.append(time.perf_counter() - begun)
    return min(spent)


def gap(theta: Tensor, t: Tensor, alpha: Tensor) -> float:
    log_q, _ = log_mixture(theta.double(), t.double(), alpha.double())
    return float((kl(log_q, theta) - kl(log_q, t)).abs().max())


def bisected(theta: Tensor, t: Tensor, steps: int = 20) -> Tensor:
    low, high = theta.new_zeros(len(theta)), theta.new_ones(len(theta))
    ratio = t - theta
    for _ in range(steps):
        alpha = (low + high) / 2
        q = torch.lerp(t, theta, alpha.unsqueeze(-1)).softmax(-1)
        right = torch.linalg.vecdot(q, ratio) > 0
        low, high = torch.where(right, alpha, low), torch.where(right, high, alpha)
    return (low + high) / 2


if __name__ == "__main__":
    main()
