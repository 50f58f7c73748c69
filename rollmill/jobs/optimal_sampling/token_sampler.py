"""One token of q for each row, from two models' logits. Imports torch and the standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.alpha import METHODS, compute_alpha
from rollmill.jobs.optimal_sampling.mixture import log_mixture, token_diagnostics
from rollmill.jobs.optimal_sampling.truncation import constrain_support, draw, sampling_distribution

FIELDS = ("alpha", "kl_theta", "kl_t", "kl_gap", "ess_ratio")
"""The diagnostics of every token, of q before temperature, top-p and top-k."""


class Drawn(NamedTuple):
    """One step of every row."""

    tokens: list[int]
    diagnostics: list[list[float]]
    """In the order of `FIELDS`; `alpha` alone without diagnostics."""
    logprobs: list[float]
    """Of the tokens, under the distribution that they were drawn from: q after temperature, top-k and top-p."""


class NoNumbersError(ArithmeticError):
    """A row's logits are infinite or not a number."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


class Drawer:
    """How q is made of two models' logits, and how a token is drawn from it.

    `top_k` -1 or 0 and `top_p` 1 leave q whole; `support_top_k`/`support_top_p` keep q to pi_t's most probable tokens.
    `temperature` 0 takes the most probable token. `excluded` ids are in neither distribution. Raises `InputError` for
    values that cannot be.
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
        check(alpha_method in METHODS, "alpha_method", alpha_method, f"one of {', '.join(METHODS)}")
        check(0 <= fixed_alpha <= 1, "fixed_alpha", fixed_alpha, "from 0 to 1")
        check(alpha_tol > 0, "alpha_tol", alpha_tol, "above 0")
        check(0 <= temperature < float("inf"), "temperature", temperature, "0 or more")
        for name, share in (("top_p", top_p), ("support_top_p", support_top_p)):
            check(0 < share <= 1, name, share, "above 0, up to 1")
        for name, count in (("top_k", top_k), ("support_top_k", support_top_k)):
            check(count >= -1, name, count, "1 or more, or -1 for all")
        self._weight: dict[str, Any] = {"method": alpha_method, "fixed_alpha": fixed_alpha, "tol": alpha_tol}
        self._cut: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        self._support: dict[str, Any] = {"top_p": support_top_p, "top_k": support_top_k}
        self._constrained = support_top_k > 0 or support_top_p < 1
        self._diagnostics = diagnostics
        self._excluded = list(excluded)

    def draw(self, logits_theta: Tensor, logits_t: Tensor, uniforms: Sequence[float]) -> Drawn:
        """Draw a token for each row of two [n, vocabulary] logits and n numbers in [0, 1).

        One tensor given twice is one distribution. Raises `NoNumbersError` for logits that are none.
        """
        log_theta = self._log_probs(logits_theta)
        log_t = log_theta if logits_t is logits_theta else self._log_probs(logits_t)
        finite = torch.stack([log_theta.amax(-1), log_t.amax(-1)]).isfinite().all(0)
        if not bool(finite.all()):
            raise NoNumbersError(int(finite.logical_not().nonzero()[0]))
        if self._constrained:
            log_theta, log_t = constrain_support(log_theta, log_t, **self._support)
        alpha = compute_alpha(log_theta, log_t, **self._weight)
        log_q, _ = log_mixture(log_theta, log_t, alpha)
        numbers = torch.tensor(uniforms, dtype=torch.float64, device=log_q.device)
        probabilities = sampling_distribution(log_q, **self._cut)
        tokens = draw(probabilities, numbers)
        logprobs = probabilities.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).log()
        diagnostics = [alpha]
        if self._diagnostics:
            all_diagnostics = token_diagnostics(log_theta, log_t, log_q, alpha)
            diagnostics = [getattr(all_diagnostics, name) for name in FIELDS]
        # All numbers leave the device at once.
        every = torch.stack([*diagnostics, logprobs], -1).tolist()
        return Drawn(tokens.tolist(), [numbers[:-1] for numbers in every], [numbers[-1] for numbers in every])

    def _log_probs(self, logits: Tensor) -> Tensor:
        if self._excluded:
            logits = logits.clone()
            logits[:, self._excluded] = -torch.inf
        return _log_softmax(logits)


class Uniforms:
    """A sample's numbers in [0, 1), float64: the same ones for a seed, by the place of a token in the answer."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn: list[float] = []

    def __getitem__(self, index: int) -> float:
        while len(self._drawn) <= index:
            self._drawn.append(float(torch.rand((), generator=self._generator, dtype=torch.float64)))
        return self._drawn[index]


def no_numbers(key: object, tokens: int) -> str:
    """Return the message for a sample whose logits are no numbers after this many tokens."""
    return (
        f"the models' logits for {key} are no numbers after {tokens} tokens: "
        "they overflow in this dtype, or the weights are broken: try bfloat16 or float32"
    )


def by_field(diagnostics: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Transpose every token's numbers into a list by name in `FIELDS`, with one number for each token."""
    return dict(zip(FIELDS, map(list, zip(*diagnostics, strict=True)), strict=False))


def _log_softmax(logits: Tensor) -> Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


def check(fits: bool, name: str, value: Any, what: str) -> None:
    """Raise `InputError` for a setting's value that cannot be.

    Args:
        fits: Whether the value can be.
        name: The setting's.
        value: Its value.
        what: What to give instead.
    """
    if not fits:
        raise InputError(f"{name} {value}: give {what}")
