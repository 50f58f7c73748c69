"""Computes the weight alpha of pi_theta in the mixture q_alpha, for every row.

K(s) = log sum pi_theta^s * pi_t^(1-s) is a cumulant generating function: under q_s, x = log pi_theta - log pi_t has the
cumulants K'(s), K''(s), ...; K is convex, and K(0) = K(1) = 0 where both distributions have the same support. -min K is
the Chernoff information (Chernoff 1952; Cover and Thomas, Elements of Information Theory, 11.9; Nielsen 2013, An
information-geometric characterization of Chernoff information). Imports torch and the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rollmill.jobs.optimal_sampling.mixture import SAFE_LOG_Z, entropy, refuse_disjoint, to_full_precision
from rollmill.jobs.optimal_sampling.row_checks import IMMEDIATE, RowChecks

METHODS = ("fixed", "kl_symmetry", "reverse_kl_symmetry", "ess_balance", "entropy")

RESOLUTION = 4
"""In units of the dtype's precision: at a smaller variance of x, the KL at the root (an eighth of it) is rounding."""
MAX_SQUARED_MEAN = 100
"""Squared mean over variance of x up to which cumulants from moments about 0 keep their digits: no cancellation."""
FREE_STEPS = 8
"""After this many steps every second one halves the bracket, which bounds the number of steps for any distributions."""
DEFERRED_STEPS = 5
"""Steps for all rows where the host does not look which are solved."""


class _Cumulants(NamedTuple):
    """K(s) and its first four derivatives: each [rows]."""

    k0: Tensor
    k1: Tensor
    k2: Tensor
    k3: Tensor
    k4: Tensor


class _Taylor(NamedTuple):
    """Value and first three derivatives of an increasing function: each [rows]."""

    value: Tensor
    first: Tensor
    second: Tensor
    third: Tensor


def compute_alpha(
    log_probs_theta: Tensor,
    log_probs_t: Tensor,
    method: str = "kl_symmetry",
    fixed_alpha: float = 0.5,
    tol: float = 1e-6,
    *,
    checks: RowChecks = IMMEDIATE,
) -> Tensor:
    """Compute the weight of pi_theta in q for each row of two [batch, vocabulary] log-probabilities: [batch].

    The result is float32, or float64 where an input is; half precision is converted to float32 and normalised again.
    -inf is a token outside the support. `tol` bounds the error of the two methods that search a root, down to the
    resolution of the dtype: the rounding error of a sum over the variance of log pi_theta - log pi_t. Methods, with
    formulas in the source:

    - `fixed`: `fixed_alpha`.
    - `kl_symmetry`: KL(q || pi_theta) = KL(q || pi_t).
    - `reverse_kl_symmetry`: KL(pi_theta || q) = KL(pi_t || q).
    - `ess_balance`: ESS_theta(q) = ESS_t(q).
    - `entropy`: H(pi_theta) / (H(pi_theta) + H(pi_t)); 0.5 where both are 0.

    The three in the middle use the common support only, and give 0.5 where the two distributions agree. Raises
    `ValueError` for an unknown method, a `fixed_alpha` outside [0, 1], a `tol` that is not positive, shapes that
    differ, NaN, and, with its number, for a row with no common support.

    Args:
        log_probs_theta: Log-probabilities of pi_theta, [batch, vocabulary].
        log_probs_t: Log-probabilities of pi_t, of the same shape.
        method: One of the methods above.
        fixed_alpha: The weight for `fixed`, in [0, 1].
        tol: Error of the methods that search a root, above 0.
        checks: When the host looks at the rows.
    """
    if log_probs_theta.shape != log_probs_t.shape or log_probs_t.ndim != 2:
        raise ValueError(f"{[*log_probs_theta.shape]} and {[*log_probs_t.shape]} are not one shape [batch, vocabulary]")
    if not 0 <= fixed_alpha <= 1:
        raise ValueError(f"fixed_alpha {fixed_alpha} is not in [0, 1]")
    if not tol > 0:
        raise ValueError(f"tol {tol} is not positive")
    log_theta, log_t = to_full_precision(log_probs_theta, log_probs_t)
    if method == "fixed":
        return log_t.new_full((len(log_t),), fixed_alpha)
    if method == "entropy":
        return _entropy_share(log_theta, log_t, checks)
    if method == "reverse_kl_symmetry":
        return _reverse_kl_symmetry(log_theta, log_t, checks)
    if method == "ess_balance":
        return _ess_balance(log_theta, log_t, tol, checks)
    if method == "kl_symmetry":
        return _kl_symmetry(log_theta, log_t, tol, checks)
    raise ValueError(f"alpha method {method!r} is not one of {', '.join(METHODS)}")


def _entropy_share(log_theta: Tensor, log_t: Tensor, checks: RowChecks) -> Tensor:
    """Return H_theta / (H_theta + H_t): the less certain distribution gets the higher weight."""
    h_theta, h_t = entropy(log_theta), entropy(log_t)
    total = h_theta + h_t
    checks.refuse(total.isnan(), "NaN among the log-probabilities")
    return torch.where(total > 0, h_theta / total, 0.5)


def _reverse_kl_symmetry(log_theta: Tensor, log_t: Tensor, checks: RowChecks) -> Tensor:
    """Return KL(theta || t) / (KL(theta || t) + KL(t || theta)).

    log q = alpha log theta + (1 - alpha) log t - K(alpha) gives KL(theta || q) = (1 - alpha) KL(theta || t) + K(alpha)
    and KL(t || q) = alpha KL(t || theta) + K(alpha): their difference is linear in alpha and falls from KL(theta || t)
    to -KL(t || theta), so there is one root. alpha KL(t || theta) there is the resistor average of the two (Johnson and
    Sinanovic 2001, Symmetrizing the Kullback-Leibler distance). Both distributions are conditioned on the common
    support, without which both sides can be infinite.
    """
    log_theta, log_t = _condition_on_common_support(log_theta, log_t, checks)
    x = log_theta - log_t
    forward, backward = (log_theta.exp() * x).sum(-1), (log_t.exp() * x).sum(-1).neg()
    total = forward + backward
    return torch.where(total > _resolution(total), forward / total, 0.5).clamp(0, 1)


def _ess_balance(log_theta: Tensor, log_t: Tensor, tol: float, checks: RowChecks) -> Tensor:
    """Find the root of log ESS_theta(q) - log ESS_t(q) = K(-alpha) - K(2 - alpha).

    This is since sum pi_theta^2 / q = exp(K(alpha) + K(2 - alpha)) and sum pi_t^2 / q = exp(K(alpha) + K(-alpha)). It
    increases, its derivative K'(2 - alpha) - K'(-alpha) being positive as K is convex, from -K(2) <= 0 to K(-1) >= 0:
    one root. Both distributions are conditioned on the common support, without which both ESS can be 0.

    Args:
        log_theta: Log-probabilities of pi_theta, [batch, vocabulary].
        log_t: Log-probabilities of pi_t, of the same shape.
        tol: Error of the root.
        checks: When the host looks at the rows.
    """
    log_theta, log_t = _condition_on_common_support(log_theta, log_t, checks)
    x = log_theta - log_t

    def balance(rows: Tensor | None, alpha: Tensor) -> _Taylor:
        parts = _select_rows(rows, log_theta, log_t, x)
        # Outside of [0, 1] the terms of K are far from normalised: only shifted sums are safe.
        low, high = _cumulants(*parts, -alpha, stable=True), _cumulants(*parts, 2 - alpha, stable=True)
        return _Taylor(low.k0 - high.k0, high.k1 - low.k1, low.k2 - high.k2, high.k3 - low.k3)

    return _find_root(balance, log_t, tol, checks)


def _kl_symmetry(log_theta: Tensor, log_t: Tensor, tol: float, checks: RowChecks) -> Tensor:
    """Find the root of D(alpha) = E_q[log pi_t - log pi_theta] = KL(q || pi_theta) - KL(q || pi_t) = -K'(alpha).

    D decreases strictly, its derivative being -Var_q(x), and K is minimal at the root, where both KL are -K, the
    Chernoff information. With equal supports, D(0) = KL(t || theta) > 0 > -KL(theta || t) = D(1): one root. Where a
    token is outside one of the supports, q has the common support for 0 < alpha < 1, and D is taken there; it may then
    have no root, and the result is, within `tol`, the end of [0, 1] where K is minimal.

    A step is one pass of exp without the shift by the maximum: nothing underflows where K(1/2) > SAFE_LOG_Z, since
    K >= 2 K(1/2) on [0, 1] by convexity. Other rows, those with -inf, and those whose cumulants would cancel come back
    as NaN, and are solved again with shifted sums.

    Args:
        log_theta: Log-probabilities of pi_theta, [batch, vocabulary].
        log_t: Log-probabilities of pi_t, of the same shape.
        tol: Error of the root.
        checks: When the host looks at the rows.
    """
    alpha = _find_minimum(log_theta, log_t, tol, checks, stable=False)
    unsolved = alpha.isnan()
    if checks.any(unsolved):
        rows = unsolved.nonzero().squeeze(-1)
        alpha[rows] = _find_minimum(*_on_common_support(log_theta, log_t, rows), tol, checks, stable=True)
    return alpha


def _find_minimum(log_theta: Tensor, log_t: Tensor, tol: float, checks: RowChecks, *, stable: bool) -> Tensor:
    """Return the minimum of K in (0, 1), [rows]; NaN for a row that needs `stable` sums.

    Args:
        log_theta: Log-probabilities of pi_theta, [rows, vocabulary].
        log_t: Log-probabilities of pi_t, of the same shape.
        tol: Error of the result.
        checks: When the host looks at the rows.
        stable: Whether sums are shifted so that nothing underflows or cancels, which takes longer.
    """
    x = log_theta - log_t
    resolution = _resolution(log_t)

    def slope(rows: Tensor | None, alpha: Tensor) -> _Taylor:
        k = _cumulants(*_select_rows(rows, log_theta, log_t, x), alpha, stable=stable)
        is_accurate = (k.k0 > SAFE_LOG_Z) & ((k.k1 * k.k1 <= MAX_SQUARED_MEAN * k.k2) | (k.k1.abs() <= 8 * resolution))
        value = k.k1 if stable else torch.where(is_accurate, k.k1, torch.nan)
        return _Taylor(value, k.k2, k.k3, k.k4)

    return _find_root(slope, log_t, tol, checks)


def _cumulants(log_theta: Tensor, log_t: Tensor, x: Tensor, s: Tensor, *, stable: bool) -> _Cumulants:
    """Compute K(s) and its derivatives; `stable` subtracts each row's greatest term, and the mean of x, first.

    Exp is most of the cost: another step costs six times as much as the two highest derivatives.

    Args:
        log_theta: Log-probabilities of pi_theta, [rows, vocabulary].
        log_t: Log-probabilities of pi_t, of the same shape.
        x: log_theta - log_t.
        s: The weight of pi_theta, [rows]; any real number.
        stable: Whether sums are shifted so that nothing underflows or cancels.
    """
    terms = torch.lerp(log_t, log_theta, s.unsqueeze(-1))
    if stable:
        shift = terms.amax(-1)
        z = terms.sub_(shift.unsqueeze(-1)).exp_().sum(-1)
        m1 = torch.linalg.vecdot(terms, x) / z
        # Central moments: the first is 0, and the cumulants follow without cancellation.
        _, m2, m3, m4 = _moments(terms, x - m1.unsqueeze(-1), z)
        return _Cumulants(z.log() + shift, m1, m2, m3, m4 - 3 * m2 * m2)
    z = terms.exp_().sum(-1)
    m1, m2, m3, m4 = _moments(terms, x, z)
    k3, k4 = m3 - m1 * (3 * m2 - 2 * m1 * m1), m4 - 4 * m1 * m3 - 3 * m2 * m2 + 12 * m1 * m1 * m2 - 6 * m1**4
    return _Cumulants(z.log(), m1, m2 - m1 * m1, k3, k4)


def _moments(terms: Tensor, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """Return the first four moments of x under terms / z. Overwrites `terms`."""
    return tuple(terms.mul_(x).sum(-1) / z for _ in range(4))


class _Bracket(NamedTuple):
    """Where the root of each row is looked for: each [rows]."""

    alpha: Tensor
    """The next place to look."""
    low: Tensor
    high: Tensor


def _find_root(
    function: Callable[[Tensor | None, Tensor], _Taylor], like: Tensor, tol: float, checks: RowChecks
) -> Tensor:
    """Find the root in (0, 1) of one increasing function per row, [batch], within `tol`; NaN where it is not finite.

    Householder's method of third order (Newton, Halley, and one derivative more) from 0.5, inside a bracket. Where a
    step leaves the bracket, and every second time after `FREE_STEPS`, the bracket is halved instead. A step is the last
    where Halley's method would have agreed within tol / 10 and the step was short: terms of weight
    e^(-|x| min(alpha, 1 - alpha)) that are negligible at its start must be so at its end. A function that is flat
    within the dtype's precision gives 0.5.

    Args:
        function: Gets the numbers of the rows that are not solved yet (None for all) and their alpha. Solved rows are
            left out, so that a root does not depend on the rest of the batch.
        like: A tensor with the batch's length, dtype and device.
        tol: Error of the roots.
        checks: When the host looks which rows are solved.
    """
    precision, resolution = torch.finfo(like.dtype).eps, _resolution(like)
    middle = like.new_full((len(like),), 0.5)
    # The first pass, at 0.5, finds the flat functions: of distributions that are equal within the precision.
    taylor = function(None, middle)
    bracket, done = _narrow(taylor, _Bracket(middle, torch.zeros_like(middle), torch.ones_like(middle)), 0, tol)
    flat = (taylor.first <= resolution) & (taylor.value.abs() <= 8 * resolution)
    bracket = bracket._replace(alpha=torch.where(flat, 0.5, bracket.alpha))
    solve = _solve_all_rows if checks.deferred else _solve_open_rows
    roots = solve(function, bracket, done | flat, tol, checks)
    # Strictly inside (0, 1): at the ends q would no longer be limited to the common support.
    return roots.clamp(precision, 1 - precision)


def _solve_open_rows(
    function: Callable[[Tensor | None, Tensor], _Taylor], bracket: _Bracket, done: Tensor, tol: float, _: RowChecks
) -> Tensor:
    """Take steps with the rows that are not solved, until all are; return the roots [batch].

    Args:
        function: As in `_find_root`.
        bracket: After the first step.
        done: Mask of the rows that are solved, [batch].
        tol: Error of the roots.
    """
    roots, step = bracket.alpha, 1
    rows = open_rows = (~done).nonzero().squeeze(-1)
    while len(rows):
        # Continue with the open rows alone: each pass costs an exp over the whole vocabulary for each of them.
        bracket = _Bracket(*(part[open_rows] for part in bracket))
        bracket, done = _narrow(function(rows, bracket.alpha), bracket, step, tol)
        roots[rows] = bracket.alpha
        open_rows = (~done).nonzero().squeeze(-1)
        rows = rows[open_rows]
        step += 1
    return roots


def _solve_all_rows(
    function: Callable[[Tensor | None, Tensor], _Taylor], bracket: _Bracket, done: Tensor, tol: float, checks: RowChecks
) -> Tensor:
    """Take `DEFERRED_STEPS` steps with all rows, and mark those that need more; return the roots [batch].

    Args:
        function: As in `_find_root`.
        bracket: After the first step.
        done: Mask of the rows that are solved, [batch].
        tol: Error of the roots.
        checks: Gets the mask of the rows that are not solved.
    """
    roots = bracket.alpha
    for step in range(1, DEFERRED_STEPS):
        bracket, now_done = _narrow(function(None, bracket.alpha), bracket, step, tol)
        # A row that is solved keeps its root: a step more would change its last bits.
        roots, done = torch.where(done, roots, bracket.alpha), done | now_done
    checks.any(~done)
    return roots


def _narrow(taylor: _Taylor, bracket: _Bracket, step: int, tol: float) -> tuple[_Bracket, Tensor]:
    """Take one step of `_find_root`; return the narrower bracket and the mask of the rows for which it was the last.

    Args:
        taylor: The function at the bracket's alpha.
        bracket: Before the step.
        step: Number of steps before this one.
        tol: Error of the roots.
    """
    alpha, low, high = bracket
    # The function increases: its root is above an alpha of negative value, and below one of positive value.
    low, high = torch.where(taylor.value <= 0, alpha, low), torch.where(taylor.value >= 0, alpha, high)
    move, difference = _householder(taylor)
    inside = (alpha - move >= low) & (alpha - move <= high)
    # A step can stay inside the bracket and yet hardly move; halving it every second time bounds the steps.
    if step > FREE_STEPS and step % 2:
        inside = torch.zeros_like(inside)
    short = (difference <= tol / 10) & (move.abs() <= torch.minimum(alpha, 1 - alpha) / 8)
    finite = taylor.value.isfinite()
    # A value that is not finite ends its row, as NaN: `_kl_symmetry` solves such rows again with stable sums.
    done = (inside & short) | (high - low <= max(tol, 2 * torch.finfo(alpha.dtype).eps)) | ~finite
    alpha = torch.where(finite, torch.where(inside, alpha - move, (low + high) / 2), torch.nan)
    return _Bracket(alpha, low, high), done


def _householder(taylor: _Taylor) -> tuple[Tensor, Tensor]:
    """Return the step to subtract, and its distance from the step of Halley's method (one order less)."""
    newton = taylor.value / taylor.first
    a, b = newton * taylor.second / (2 * taylor.first), newton * newton * taylor.third / (6 * taylor.first)
    move = newton * (1 - a) / (1 - 2 * a + b)
    return move, (move - newton / (1 - a)).abs()


def _select_rows(rows: Tensor | None, log_theta: Tensor, log_t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return these rows of each tensor.

    Args:
        rows: Indices of the rows; None for all, without a copy.
        log_theta: [batch, vocabulary].
        log_t: [batch, vocabulary].
        x: log_theta - log_t.
    """
    if rows is None:
        return log_theta, log_t, x
    return log_theta.index_select(0, rows), log_t.index_select(0, rows), x.index_select(0, rows)


def _on_common_support(log_theta: Tensor, log_t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return these rows, with the same negligible value for both outside the common support.

    Finite, so that x = log_theta - log_t is 0 there, and not NaN. Raises `ValueError` for rows with NaN or without a
    common support.
    """
    log_theta, log_t = log_theta[rows], log_t[rows]
    common = (log_theta > -torch.inf) & (log_t > -torch.inf)
    IMMEDIATE.refuse((log_theta + log_t).isnan().any(-1), "NaN among the log-probabilities", rows)
    refuse_disjoint(~common.any(-1), rows)
    negligible = torch.finfo(log_t.dtype).min / 8
    return torch.where(common, log_theta, negligible), torch.where(common, log_t, negligible)


def _condition_on_common_support(log_theta: Tensor, log_t: Tensor, checks: RowChecks) -> tuple[Tensor, Tensor]:
    """Condition both distributions on the common support: normalise rows again where it is not the whole vocabulary."""
    finite = ((log_theta > -torch.inf) & (log_t > -torch.inf)).all(-1)
    if not checks.any(~finite):
        return log_theta, log_t
    rows = (~finite).nonzero().squeeze(-1)
    theta, t = _on_common_support(log_theta, log_t, rows)
    return log_theta.index_copy(0, rows, theta.log_softmax(-1)), log_t.index_copy(0, rows, t.log_softmax(-1))


def _resolution(like: Tensor) -> float:
    """Return the variance of x below which two distributions are equal for this dtype."""
    return RESOLUTION * torch.finfo(like.dtype).eps
