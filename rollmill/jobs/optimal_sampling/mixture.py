"""Computes the geometric mixture of two distributions over tokens, and its diagnostics: KL, ESS, entropy.

q_alpha(y) is proportional to pi_theta(y)^alpha * pi_t(y)^(1 - alpha): alpha weighs theta, the current policy; t is the
target. Distributions are [batch, vocabulary] natural log-probabilities, normalised, -inf outside a support. Half
precision is converted to float32 and normalised again, float64 stays. Imports torch and the standard library only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rollmill.jobs.optimal_sampling.row_checks import IMMEDIATE, RowChecks


class TokenDiagnostics(NamedTuple):
    """Diagnostics of one decoding step; each is [batch] float32."""

    alpha: Tensor
    kl_theta: Tensor
    """KL(q || pi_theta) in nats."""
    kl_t: Tensor
    """KL(q || pi_t) in nats."""
    kl_gap: Tensor
    """|kl_theta - kl_t|: the check of `kl_symmetry`, 0 at its root."""
    ess_theta: Tensor
    ess_t: Tensor
    ess_ratio: Tensor
    """ess_theta / ess_t; 1 where both are 0. KL symmetry does not make it 1."""
    entropy_theta: Tensor
    """Entropy in nats."""
    entropy_t: Tensor


SAFE_LOG_Z = -30.0
"""Log of a sum of exponentials above which no shift by the maximum is needed: underflow in float32 loses nothing."""


def to_full_precision(*log_p: Tensor) -> tuple[Tensor, ...]:
    """Convert all to float32, or to float64 where one is.

    Half precision is normalised again: probabilities of rounded logarithms no longer sum to 1.
    """
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in log_p) else torch.float32
    return tuple(
        tensor.to(dtype) if tensor.dtype.itemsize >= 4 else tensor.to(dtype).log_softmax(-1) for tensor in log_p
    )


def refuse_disjoint(bad: Tensor, rows: Tensor | None = None) -> None:
    """Raise `ValueError` for rows whose two distributions have no token in common; see `ImmediateChecks.refuse`."""
    IMMEDIATE.refuse(bad, "no token has a probability under both theta and t", rows)


def log_mixture(
    log_theta: Tensor, log_t: Tensor, alpha: Tensor | float, *, checks: RowChecks = IMMEDIATE
) -> tuple[Tensor, Tensor]:
    """Compute log q_alpha [B, V], normalised, and log Z(alpha) [B]: Z is the sum of pi_theta^alpha * pi_t^(1 - alpha).

    For 0 < alpha < 1, q has the common support. Alpha 0 and 1 give pi_t and pi_theta, bit for bit, and log Z 0. Raises
    `ValueError`, with the row's number, where there is no common support or NaN, or alpha is not in [0, 1].

    Args:
        log_theta: Log-probabilities of pi_theta, [B, V].
        log_t: Log-probabilities of pi_t, [B, V].
        alpha: The weight of pi_theta, [B] or one for all rows.
        checks: When the host looks at the rows.
    """
    log_theta, log_t = to_full_precision(log_theta, log_t)
    weight = torch.as_tensor(alpha, dtype=log_t.dtype, device=log_t.device).expand(len(log_t))
    log_q = torch.lerp(log_t, log_theta, weight.unsqueeze(-1))
    log_z = log_q.exp().sum(-1).log()
    # NaN compares as False: such rows take the slow path, which raises for them.
    plain = (weight > 0) & (weight < 1) & (log_z > SAFE_LOG_Z)
    if checks.any(~plain):
        rows = (~plain).nonzero().squeeze(-1)
        exact, log_z[rows] = _stable_mixture(log_theta[rows], log_t[rows], weight[rows], rows)
        return log_q.sub_(log_z.unsqueeze(-1)).index_copy_(0, rows, exact), log_z
    return log_q.sub_(log_z.unsqueeze(-1)), log_z


def _stable_mixture(log_theta: Tensor, log_t: Tensor, weight: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log q, normalised, and log Z for any supports and weights.

    Args:
        log_theta: Log-probabilities of pi_theta, [rows, vocabulary].
        log_t: Log-probabilities of pi_t, of the same shape.
        weight: The weight of pi_theta, [rows].
        rows: Numbers of the rows in the batch, for errors.
    """
    IMMEDIATE.refuse(~((weight >= 0) & (weight <= 1)), "alpha is not in [0, 1]", rows)
    IMMEDIATE.refuse((log_theta + log_t).isnan().any(-1), "NaN among the log-probabilities", rows)
    column = weight.unsqueeze(-1)
    common = (log_theta > -torch.inf) & (log_t > -torch.inf)
    log_q = torch.where(common, torch.lerp(log_t, log_theta, column), -torch.inf)
    log_z = torch.where((weight == 0) | (weight == 1), 0, log_q.logsumexp(-1))
    refuse_disjoint(log_z == -torch.inf, rows)
    # At the ends the distribution itself, with its own support.
    return torch.where(column == 0, log_t, torch.where(column == 1, log_theta, log_q.log_softmax(-1))), log_z


def entropy(log_p: Tensor) -> Tensor:
    """Compute -sum p log p [B], in nats."""
    (log_p,) = to_full_precision(log_p)
    return -_expected(log_p.exp(), log_p.clamp_min(torch.finfo(log_p.dtype).min))


def kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Compute KL(q || p) [B], in nats: infinite where q has a token that p lacks, and never below 0."""
    log_q, log_p = to_full_precision(log_q, log_p)
    return _kl(log_q.exp(), log_q, log_p)


def _kl(q: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
    """Compute KL(q || p) [B] with q = exp(log_q) given."""
    difference = log_q - log_p
    divergence = _expected(q, difference)
    # 0 * -inf, or -inf - -inf, of tokens that q lacks: these count 0. Only on a CPU is it cheap to look for them first.
    if not q.is_cpu or bool(divergence.isnan().any()):
        divergence = _expected(q, torch.where((q == 0) & ~difference.isfinite(), 0, difference))
    return divergence.clamp_min(0)


def _expected(p: Tensor, value: Tensor) -> Tensor:
    """Compute the mean [B] of `value` under p."""
    mean: Tensor = torch.linalg.vecdot(p, value)
    return mean


def ess(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Compute ESS_p(q) = 1 / sum(p^2 / q) over p's support [B]: 1 where q is p, 0 where q lacks a token of p."""
    log_q, log_p = to_full_precision(log_q, log_p)
    return _log_inverse_ess(log_q, log_p).neg().exp()


def _log_inverse_ess(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Compute log sum(p^2 / q) [B], which is log ESS with the sign changed."""
    terms = torch.lerp(log_q, log_p, 2.0)  # 2 log p - log q
    log_sum = terms.exp().sum(-1).log()
    if log_q.is_cpu and bool(log_sum.isfinite().all()):  # elsewhere a look costs more than the other path
        return log_sum
    return torch.where(log_sum.isfinite(), log_sum, torch.where(log_p == -torch.inf, -torch.inf, terms).logsumexp(-1))


def token_diagnostics(log_theta: Tensor, log_t: Tensor, log_q: Tensor, alpha: Tensor) -> TokenDiagnostics:
    """Compute the diagnostics of one step's q, which was made with `alpha` [B].

    Args:
        log_theta: Log-probabilities of pi_theta, [B, V].
        log_t: Log-probabilities of pi_t, [B, V].
        log_q: Log-probabilities of q, [B, V].
        alpha: The weight of pi_theta, [B].
    """
    log_theta, log_t, log_q = to_full_precision(log_theta, log_t, log_q)
    q = log_q.exp()
    kl_theta, kl_t = _kl(q, log_q, log_theta), _kl(q, log_q, log_t)
    inverse_theta, inverse_t = _log_inverse_ess(log_q, log_theta), _log_inverse_ess(log_q, log_t)
    numbers = {
        "kl_theta": kl_theta,
        "kl_t": kl_t,
        # `where`, since inf - inf is NaN: two infinite values are equal here.
        "kl_gap": torch.where(kl_theta == kl_t, 0, (kl_theta - kl_t).abs()),
        "ess_theta": inverse_theta.neg().exp(),
        "ess_t": inverse_t.neg().exp(),
        "ess_ratio": torch.where(inverse_theta == inverse_t, 1, (inverse_t - inverse_theta).exp()),
        "entropy_theta": entropy(log_theta),
        "entropy_t": entropy(log_t),
    }
    return TokenDiagnostics(alpha.float(), **{name: value.float() for name, value in numbers.items()})
