"""The geometric mixture of two distributions over tokens, and what is told of it.

q_alpha(y) is proportional to pi_theta(y)^alpha * pi_t(y)^(1 - alpha): alpha weighs theta, the current policy; t is the
target. Everything is [batch, vocabulary] natural log-probabilities, normalised, -inf outside a support. Half precision
is taken up to float32 and normalised again, float64 stays. Imports torch and the standard library only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TokenDiagnostics(NamedTuple):
    """Of one step; each is [batch] float32."""

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
    """In nats."""
    entropy_t: Tensor


SAFE_LOG_Z = -30.0
"""A sum of exponentials of log-probabilities above this loses nothing to underflow in float32, taken as it is."""


def lifted(*log_p: Tensor) -> tuple[Tensor, ...]:
    """All in float32, or in float64 where one is.

    Half precision is normalised again: rounded log-probabilities no longer sum to 1.
    """
    wide = torch.float64 if any(one.dtype == torch.float64 for one in log_p) else torch.float32
    return tuple(one.to(wide) if one.dtype.itemsize >= 4 else one.to(wide).log_softmax(-1) for one in log_p)


def refuse(bad: Tensor, why: str, rows: Tensor | None = None) -> None:
    """Raises `ValueError` with the number of the first bad row, if there is one; `rows` are the numbers to give."""
    if bool(bad.any()):
        first = bad.nonzero()[0, 0]
        raise ValueError(f"row {int(first if rows is None else rows[first])}: {why}")


def refuse_no_overlap(bad: Tensor, rows: Tensor | None = None) -> None:
    """`refuse` for rows whose two distributions have no token in common."""
    refuse(bad, "no token has a probability under both theta and t", rows)


def log_mixture(log_theta: Tensor, log_t: Tensor, alpha: Tensor | float) -> tuple[Tensor, Tensor]:
    """The log of q_alpha [B, V], normalised, and log Z(alpha) [B]: Z is the sum of pi_theta^alpha * pi_t^(1 - alpha).

    For 0 < alpha < 1, q lives on the common support. Alpha 0 and 1 give pi_t and pi_theta, bit for bit, and log Z 0.
    Raises `ValueError`, with the row's number, where there is no common support or NaN, or alpha is not in [0, 1].
    """
    log_theta, log_t = lifted(log_theta, log_t)
    weight = torch.as_tensor(alpha, dtype=log_t.dtype, device=log_t.device).expand(len(log_t))
    log_q = torch.lerp(log_t, log_theta, weight.unsqueeze(-1))
    log_z = log_q.exp().sum(-1).log()
    plain = (weight > 0) & (weight < 1) & (log_z > SAFE_LOG_Z)
    if not bool(plain.all()):
        rows = (~plain).nonzero().squeeze(-1)
        exact, log_z[rows] = _careful(log_theta[rows], log_t[rows], weight[rows], rows)
        return log_q.sub_(log_z.unsqueeze(-1)).index_copy_(0, rows, exact), log_z
    return log_q.sub_(log_z.unsqueeze(-1)), log_z


def _careful(log_theta: Tensor, log_t: Tensor, weight: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The log of q, normalised, and log Z, whatever the supports and weights."""
    refuse(~((weight >= 0) & (weight <= 1)), "alpha is not in [0, 1]", rows)
    refuse((log_theta + log_t).isnan().any(-1), "NaN among the log-probabilities", rows)
    wide = weight.unsqueeze(-1)
    common = (log_theta > -torch.inf) & (log_t > -torch.inf)
    log_q = torch.where(common, torch.lerp(log_t, log_theta, wide), -torch.inf)
    log_z = torch.where((weight == 0) | (weight == 1), 0, log_q.logsumexp(-1))
    refuse_no_overlap(log_z == -torch.inf, rows)
    return torch.where(wide == 0, log_t, torch.where(wide == 1, log_theta, log_q.log_softmax(-1))), log_z


def entropy(log_p: Tensor) -> Tensor:
    """-sum p log p [B], in nats."""
    (log_p,) = lifted(log_p)
    return -_expected(log_p.exp(), log_p.clamp_min(torch.finfo(log_p.dtype).min))


def kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) [B], in nats: infinite where q has a token that p lacks; at least 0, rounding apart."""
    log_q, log_p = lifted(log_q, log_p)
    return _kl(log_q.exp(), log_q, log_p)


def _kl(q: Tensor, log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) for those who have q already."""
    difference = log_q - log_p
    told = _expected(q, difference)
    if bool(told.isnan().any()):
        told = _expected(q, torch.where((q == 0) & ~difference.isfinite(), 0, difference))
    return told.clamp_min(0)


def _expected(p: Tensor, value: Tensor) -> Tensor:
    """The mean [B] of `value` under p."""
    told: Tensor = torch.linalg.vecdot(p, value)
    return told


def ess(log_q: Tensor, log_p: Tensor) -> Tensor:
    """ESS_p(q) = 1 / sum(p^2 / q) over p's support [B]: 1 where q is p, 0 where q lacks a token of p."""
    log_q, log_p = lifted(log_q, log_p)
    return _log_inverse_ess(log_q, log_p).neg().exp()


def _log_inverse_ess(log_q: Tensor, log_p: Tensor) -> Tensor:
    """The log of sum(p^2 / q)."""
    terms = torch.lerp(log_q, log_p, 2.0)
    told = terms.exp().sum(-1).log()
    if bool(told.isfinite().all()):
        return told
    return torch.where(told.isfinite(), told, torch.where(log_p == -torch.inf, -torch.inf, terms).logsumexp(-1))


def token_diagnostics(log_theta: Tensor, log_t: Tensor, log_q: Tensor, alpha: Tensor) -> TokenDiagnostics:
    """What is told of one step's q, which was made with `alpha` [B]."""
    log_theta, log_t, log_q = lifted(log_theta, log_t, log_q)
    q = log_q.exp()
    kl_theta, kl_t = _kl(q, log_q, log_theta), _kl(q, log_q, log_t)
    inverse_theta, inverse_t = _log_inverse_ess(log_q, log_theta), _log_inverse_ess(log_q, log_t)
    told = {
        "kl_theta": kl_theta,
        "kl_t": kl_t,
        "kl_gap": torch.where(kl_theta == kl_t, 0, (kl_theta - kl_t).abs()),
        "ess_theta": inverse_theta.neg().exp(),
        "ess_t": inverse_t.neg().exp(),
        "ess_ratio": torch.where(inverse_theta == inverse_t, 1, (inverse_t - inverse_theta).exp()),
        "entropy_theta": entropy(log_theta),
        "entropy_t": entropy(log_t),
    }
    return TokenDiagnostics(alpha.float(), **{name: value.float() for name, value in told.items()})
