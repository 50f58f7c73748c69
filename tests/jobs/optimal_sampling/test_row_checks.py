"""Draws that look at the rows once, with the result, equal those that look at once."""

from __future__ import annotations

import pytest
import torch

from rollmill.jobs.optimal_sampling.alpha import METHODS
from rollmill.jobs.optimal_sampling.row_checks import IMMEDIATE, DeferredChecks
from rollmill.jobs.optimal_sampling.token_sampler import TokenSampler

VOCABULARY = 700


def logits(kind: str, rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two [rows, VOCABULARY] logits."""
    generator = torch.Generator().manual_seed(1)
    theta, noise = torch.randn((2, rows, VOCABULARY), generator=generator)
    if kind == "apart":
        return 3 * theta, 3 * noise
    if kind == "peaked":
        return 12 * theta, 12 * theta + 3 * noise
    return 3 * theta, 3 * theta + 0.3 * noise


def compute(sampler: TokenSampler, theta: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values of a draw with deferred checks, and the mask of marked rows."""
    checks = DeferredChecks()
    uniforms = torch.linspace(0, 0.99, len(theta), dtype=torch.float64)
    values = sampler._compute(theta, t, uniforms, checks)
    return values, checks.marked(values[:, 0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["apart", "peaked", "near"])
@pytest.mark.parametrize("cuts", [{}, {"top_p": 0.8, "top_k": 50}, {"temperature": 0.6}])
def test_rows_that_are_not_marked_have_the_same_values_to_the_bit(method, kind, cuts):
    theta, t = logits(kind)
    sampler = TokenSampler(alpha_method=method, **cuts)
    values, marked = compute(sampler, theta, t)
    uniforms = torch.linspace(0, 0.99, len(theta), dtype=torch.float64)
    expected = sampler._compute(theta, t, uniforms, IMMEDIATE)
    assert torch.equal(values[~marked], expected[~marked])
    assert not marked.all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda theta, t: theta.fill_(torch.nan),
        lambda theta, t: t.fill_(torch.inf),
        lambda theta, t: (theta[: VOCABULARY // 2].fill_(-torch.inf), t[VOCABULARY // 2 :].fill_(-torch.inf)),
        lambda theta, t: theta.fill_(-torch.inf),
    ],
    ids=["nan", "inf", "no common token", "no token"],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_row_that_needs_an_error_is_marked_alone(spoil, method):
    theta, t = logits("near")
    spoil(theta[2], t[2])
    _, marked = compute(TokenSampler(alpha_method=method), theta, t)
    assert marked.tolist() == [False, False, True, False, False, False]


def test_a_step_with_a_marked_row_gives_none():
    theta, t = logits("near")
    uniforms = torch.full((len(theta),), 0.5, dtype=torch.float64)
    sampler = TokenSampler()
    assert sampler.draw_deferred(theta, t, uniforms) == sampler.draw(theta, t, uniforms.tolist())
    theta[4].fill_(torch.nan)
    assert sampler.draw_deferred(theta, t, uniforms) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha_method": "fixed", "fixed_alpha": 0.0},
        {"alpha_method": "fixed", "fixed_alpha": 1.0},
        {"support_top_k": 9},
        {"excluded": [3]},
    ],
)
def test_a_sampler_whose_rows_all_lack_tokens_does_not_defer(settings):
    theta, t = logits("near")
    uniforms = torch.full((len(theta),), 0.5, dtype=torch.float64)
    assert TokenSampler(**settings).draw_deferred(theta, t, uniforms) is None
