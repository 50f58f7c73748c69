"""Draws one token of q for each row from two models' logits. Imports torch and the standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.alpha import METHODS, compute_alpha
from rollmill.jobs.optimal_sampling.captured_passes import CapturedPasses
from rollmill.jobs.optimal_sampling.device_copy import upload
from rollmill.jobs.optimal_sampling.mixture import log_mixture, token_diagnostics
from rollmill.jobs.optimal_sampling.row_checks import IMMEDIATE, DeferredChecks, RowChecks
from rollmill.jobs.optimal_sampling.truncation import constrain_support, draw, sampling_distribution

FIELDS = ("alpha", "kl_theta", "kl_t", "kl_gap", "ess_ratio")
"""The diagnostics of every token, of q before temperature, top-p and top-k."""


class TokenStep(NamedTuple):
    """One decoding step: a token for each row."""

    tokens: list[int]
    diagnostics: list[list[float]]
    """For each row, values in the order of `FIELDS`; `alpha` alone without diagnostics."""
    logprobs: list[float]
    """Log-probability of each token under q after temperature, top-k and top-p, from which it was drawn."""


class NonFiniteLogitsError(ArithmeticError):
    """A row's logits are all -inf, or have +inf or NaN among them."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


class TokenSampler:
    """Computes q from two models' logits, and draws tokens from it. Raises `InputError` for values out of bounds.

    Args:
        alpha_method: Method by which alpha is chosen; see `compute_alpha`.
        fixed_alpha: Alpha of the method `fixed`, in [0, 1].
        alpha_tol: Error of the methods that search a root, above 0.
        temperature: Temperature of q; 0 takes the most probable token.
        top_p: Nucleus of q; 1 for all tokens.
        top_k: Number of q's most probable tokens; -1 or 0 for all.
        support_top_k: q is restricted to so many of pi_t's most probable tokens; -1 or 0 for all.
        support_top_p: q is restricted to pi_t's nucleus of this mass.
        diagnostics: Whether to compute KL and ESS besides alpha.
        excluded: Token ids that neither distribution has.
    """

    def __init__(
        self,
        *,
        alpha_method: str = "kl_symmetry",
        fixed_alpha: float = 0.5,
        alpha_tol: float = 1e-6,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = -1,
        support_top_k: int = -1,
        support_top_p: float = 1.0,
        diagnostics: bool = True,
        excluded: Sequence[int] = (),
    ) -> None:
        check_setting(alpha_method in METHODS, "alpha_method", alpha_method, f"one of {', '.join(METHODS)}")
        check_setting(0 <= fixed_alpha <= 1, "fixed_alpha", fixed_alpha, "from 0 to 1")
        check_setting(alpha_tol > 0, "alpha_tol", alpha_tol, "above 0")
        check_setting(0 <= temperature < float("inf"), "temperature", temperature, "0 or more")
        for name, share in (("top_p", top_p), ("support_top_p", support_top_p)):
            check_setting(0 < share <= 1, name, share, "above 0, up to 1")
        for name, count in (("top_k", top_k), ("support_top_k", support_top_k)):
            check_setting(count >= -1, name, count, "1 or more, or -1 for all")
        self._weight: dict[str, Any] = {"method": alpha_method, "fixed_alpha": fixed_alpha, "tol": alpha_tol}
        self._truncation: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        self._support: dict[str, Any] = {"top_p": support_top_p, "top_k": support_top_k}
        self._has_support = support_top_k > 0 or support_top_p < 1
        self._diagnostics = diagnostics
        self._excluded = list(excluded)
        self._excluded_ids: Tensor | None = None
        self.passes: CapturedPasses | None = None
        """Repeats draws of the same number of rows on a GPU; None to run their kernels one by one."""

    def draw(self, logits_theta: Tensor, logits_t: Tensor, uniforms: Sequence[float]) -> TokenStep:
        """Draw a token for each row of two [n, vocabulary] logits, by n uniforms in [0, 1).

        The same tensor given twice is one distribution, computed once. On a GPU the host waits for the device once, for
        the result. Raises `NonFiniteLogitsError`.
        """
        numbers = upload(uniforms, torch.float64, logits_theta.device)
        step = None if logits_theta.is_cpu else self.draw_deferred(logits_theta, logits_t, numbers)
        return step or _as_step(self._compute(logits_theta, logits_t, numbers, IMMEDIATE).tolist())

    def draw_deferred(self, logits_theta: Tensor, logits_t: Tensor, uniforms: Tensor) -> TokenStep | None:
        """Draw as `draw` does, but look at the rows only with the result; None where one of them is not ordinary."""
        if not self._can_defer:
            return None
        is_same = logits_t is logits_theta
        inputs = (uniforms, logits_theta) if is_same else (uniforms, logits_theta, logits_t)
        if self.passes is None:
            values = self._compute_deferred(*inputs)
        else:
            values = self.passes.run((len(uniforms), is_same), self._compute_deferred, *inputs)
        rows = values.tolist()
        return None if rows[0][-1] else _as_step([row[:-1] for row in rows])

    def _compute_deferred(self, uniforms: Tensor, logits_theta: Tensor, logits_t: Tensor | None = None) -> Tensor:
        """Return what `_compute` does, with a last column: 1 in every row where one of them is not ordinary, else 0.

        Args:
            uniforms: In [0, 1), [n].
            logits_theta: [n, vocabulary].
            logits_t: [n, vocabulary]; None for those of theta.
        """
        checks = DeferredChecks()
        values = self._compute(logits_theta, logits_theta if logits_t is None else logits_t, uniforms, checks)
        is_marked = checks.marked(values[:, 0]).any().to(values.dtype)
        return torch.cat([values, is_marked.expand(len(values), 1)], -1)

    def _compute(self, logits_theta: Tensor, logits_t: Tensor, uniforms: Tensor, checks: RowChecks) -> Tensor:
        """Return, for each row, the token, its log-probability, and the diagnostics: float64 [n, 2 + diagnostics].

        Args:
            logits_theta: [n, vocabulary].
            logits_t: [n, vocabulary]; may be the same tensor.
            uniforms: In [0, 1), [n].
            checks: When the host looks at the rows.
        """
        log_theta = self._log_probs(logits_theta)
        log_t = log_theta if logits_t is logits_theta else self._log_probs(logits_t)
        # NaN and +inf spread to the whole row of a log-softmax, so that its maximum shows them.
        finite = torch.stack([log_theta.amax(-1), log_t.amax(-1)]).isfinite().all(0)
        if checks.any(~finite):
            raise NonFiniteLogitsError(int(finite.logical_not().nonzero()[0]))
        if self._has_support:
            log_theta, log_t = constrain_support(log_theta, log_t, **self._support, checks=checks)
        alpha = compute_alpha(log_theta, log_t, **self._weight, checks=checks)
        log_q, _ = log_mixture(log_theta, log_t, alpha, checks=checks)
        probabilities = sampling_distribution(log_q, **self._truncation, checks=checks)
        tokens = draw(probabilities, uniforms, checks=checks)
        logprobs = probabilities.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).log()
        diagnostics = [alpha]
        if self._diagnostics:
            all_diagnostics = token_diagnostics(log_theta, log_t, log_q, alpha)
            diagnostics = [getattr(all_diagnostics, name) for name in FIELDS]
        # float64 holds a token's id exactly, and every number of lower precision.
        return torch.stack([column.double() for column in (tokens, logprobs, *diagnostics)], -1)

    @property
    def _can_defer(self) -> bool:
        """Return whether rows are ordinary as a rule: not where each of them lacks tokens."""
        at_an_end = self._weight["method"] == "fixed" and not 0 < self._weight["fixed_alpha"] < 1
        return not (self._has_support or self._excluded or at_an_end)

    def _log_probs(self, logits: Tensor) -> Tensor:
        if self._excluded:
            if self._excluded_ids is None or self._excluded_ids.device != logits.device:
                self._excluded_ids = torch.tensor(self._excluded, device=logits.device)
            # A copy: the caller's tensor may be a view of the model's output.
            logits = logits.index_fill(-1, self._excluded_ids, -torch.inf)
        return _log_softmax(logits)


def _as_step(rows: list[list[float]]) -> TokenStep:
    """Convert the rows of `TokenSampler._compute`."""
    return TokenStep([int(row[0]) for row in rows], [row[2:] for row in rows], [row[1] for row in rows])


class Uniforms:
    """A sample's uniform numbers in [0, 1), float64, by the index of a token in the answer: a function of the seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn: list[float] = []

    def __getitem__(self, index: int) -> float:
        while len(self._drawn) <= index:
            self._drawn.append(float(torch.rand((), generator=self._generator, dtype=torch.float64)))
        return self._drawn[index]


def non_finite_message(key: object, tokens: int) -> str:
    """Return the message for a sample whose logits are not finite after this many tokens."""
    return (
        f"the models' logits for {key} are not finite after {tokens} tokens: "
        "they overflow in this dtype, or the weights are broken: try bfloat16 or float32"
    )


def by_field(diagnostics: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Transpose the diagnostics of each token into lists by name in `FIELDS`, with one value for each token."""
    return dict(zip(FIELDS, map(list, zip(*diagnostics, strict=True)), strict=False))


def _log_softmax(logits: Tensor) -> Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


def check_setting(is_valid: bool, name: str, value: Any, expected: str) -> None:
    """Raise `InputError` for a setting out of bounds.

    Args:
        is_valid: Whether the value is within bounds.
        name: Name of the setting.
        value: Value of the setting.
        expected: The values to give instead, for the message.
    """
    if not is_valid:
        raise InputError(f"{name} {value}: give {expected}")
