"""Temperature, top-k and top-p of q, and the draw of a token. Imports torch and the standard library only."""

from __future__ import annotations

import torch
from torch import Tensor

from rollmill.jobs.optimal_sampling.mixture import to_full_precision
from rollmill.jobs.optimal_sampling.row_checks import IMMEDIATE, RowChecks

FIXED_POINT = 2.0**53
"""Probabilities are summed as integers of 2^-53: float64 has 53 bits."""
FIRST_LOOK = 256
"""Number of tokens that top-p sorts first; where they do not reach it, eight times as many, and so on."""
DEFERRED_LOOK = 8 * FIRST_LOOK
"""Number of tokens that top-p sorts where the host does not look whether they reach it."""


def sampling_distribution(
    log_q: Tensor, *, temperature: float, top_p: float, top_k: int, checks: RowChecks = IMMEDIATE
) -> Tensor:
    """Return probabilities [B, V] after temperature, then top-k, then top-p of the remaining tokens.

    Tokens as probable as the last one kept are kept, too, so that the result does not depend on the order of tokens.
    Raises `ValueError` for a negative temperature or a `top_p` outside [0, 1].

    Args:
        log_q: Log-probabilities of q, [B, V].
        temperature: At least 0; 0 puts all probability on the most probable token, the first of equals.
        top_p: Mass of the nucleus, in [0, 1]; 1 for all tokens.
        top_k: Number of most probable tokens to keep; all where it is not positive.
        checks: When the host looks at the rows.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature {temperature} is negative")
    (log_q,) = to_full_precision(log_q)
    if temperature == 0:
        return torch.zeros_like(log_q).scatter_(-1, log_q.argmax(-1, keepdim=True), 1)
    scaled = log_q if temperature == 1 else log_q / temperature
    support = _support(scaled, top_p=top_p, top_k=top_k, checks=checks)
    return (scaled if support is None else scaled.masked_fill(~support, -torch.inf)).softmax(-1)


def constrain_support(
    log_theta: Tensor, log_t: Tensor, *, top_p: float, top_k: int, checks: RowChecks = IMMEDIATE
) -> tuple[Tensor, Tensor]:
    """Restrict both distributions to the tokens that top-k, then top-p keep of pi_t; normalised, -inf elsewhere.

    Raises `ValueError` for a `top_p` outside [0, 1] and, with its number, for a row where pi_theta has none of them.

    Args:
        log_theta: Log-probabilities of pi_theta, [B, V].
        log_t: Log-probabilities of pi_t, [B, V].
        top_p: Mass of the nucleus, in [0, 1]; 1 for all tokens.
        top_k: Number of most probable tokens to keep; all where it is not positive.
        checks: When the host looks at the rows.
    """
    log_theta, log_t = to_full_precision(log_theta, log_t)
    support = _support(log_t, top_p=top_p, top_k=top_k, checks=checks)
    if support is None:
        return log_theta, log_t
    log_theta, log_t = log_theta.masked_fill(~support, -torch.inf), log_t.masked_fill(~support, -torch.inf)
    checks.refuse((log_theta == -torch.inf).all(-1), "theta has none of the tokens that top-k and top-p leave of t")
    return log_theta.log_softmax(-1), log_t.log_softmax(-1)


def draw(probabilities: Tensor, uniforms: Tensor, *, checks: RowChecks = IMMEDIATE) -> Tensor:
    """Draw a token of each row, [B] int64: by inverse CDF in the order of token ids, from one uniform [B] in [0, 1].

    The CDF is summed in integers of 2^-53, which is exact: the same on any device and at any batch size, and a token of
    probability 0 is never drawn, not even by a uniform of 0 or 1. Raises `ValueError`, with the row's number, for NaN
    or a row of zeros.
    """
    checks.refuse(~(probabilities.sum(-1) > 0), "no probability to draw from")
    cumulative = (probabilities * FIXED_POINT).to(torch.int64).cumsum(-1)
    total = cumulative[:, -1]
    reached = torch.minimum((uniforms.double() * total).to(torch.int64), total - 1)
    tokens = torch.searchsorted(cumulative, reached.unsqueeze(-1), right=True).squeeze(-1)
    # For a marked row, of which nothing is right: a device ends the process for an index behind the last token.
    return tokens.clamp_max(probabilities.shape[-1] - 1)


def _support(log_p: Tensor, *, top_p: float, top_k: int, checks: RowChecks) -> Tensor | None:
    """Return the mask of the tokens that top-k and then top-p keep, [B, V]; None for all.

    Args:
        log_p: Log-probabilities, [B, V].
        top_p: Mass of the nucleus, in [0, 1]; 1 for all tokens.
        top_k: Number of most probable tokens to keep; all where it is not positive.
        checks: When the host looks at the rows.
    """
    if not 0 <= top_p <= 1:
        raise ValueError(f"top_p {top_p} is not in [0, 1]")
    support = None
    if 0 < top_k < log_p.shape[-1]:
        support = log_p >= log_p.topk(top_k).values[:, -1:]
        log_p = log_p.masked_fill(~support, -torch.inf)
    if top_p < 1:
        probabilities = log_p.softmax(-1)
        support = probabilities >= _boundary(probabilities, top_p, checks)
    return support


def _boundary(probabilities: Tensor, top_p: float, checks: RowChecks) -> Tensor:
    """Return the probability of the token with which the most probable ones reach `top_p`: [B, 1], positive."""
    size = probabilities.shape[-1]
    # One look decides for all rows: a larger one, where the host must not see whether it has been large enough.
    count = min(size, DEFERRED_LOOK if checks.deferred else FIRST_LOOK)
    while True:
        ordered = probabilities.topk(count).values
        reached = ordered.cumsum(-1, dtype=torch.float64) >= top_p
        if count == size or not checks.any(~reached[:, -1]):
            # The number of tokens before the nucleus is full is the index of the one that fills it.
            last = (~reached).sum(-1, keepdim=True).clamp_max(count - 1)
            return ordered.gather(-1, last).clamp_min(torch.finfo(ordered.dtype).tiny)
        count = min(size, 8 * count)
