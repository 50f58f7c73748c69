"""Alpha is compared with another root finder in float64, and checked for the properties of the root."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.jobs.optimal_sampling.alpha import METHODS
from rollmill.jobs.optimal_sampling.mixture import ess, kl, log_mixture, token_diagnostics
from rollmill.optimal_sampling import compute_alpha
from tests.jobs.optimal_sampling.distributions import numbers, pairs

torch.set_num_threads(1)

SEARCHED = ("kl_symmetry", "reverse_kl_symmetry", "ess_balance")
SHAPES = [(600, 2), (400, 5), (400, 50), (100, 1000), (8, 49_152), (2, 151_936)]
SPREADS = [(1, 0.03), (1, 0.3), (0.1, 0.1), (3, 1), (3, 3), (8, 8), (20, 20)]
"""Scales of theta's logits, and of t's difference: near and far, flat and peaked, up to hardly any common token."""


def moments(theta, t, alpha):
    """Mean and variance of log t - log theta under q, and log Z; float64, common support."""
    common = np.isfinite(theta) & np.isfinite(t)
    r = np.subtract(t, theta, where=common, out=np.zeros_like(t))
    log_w = np.where(common, np.where(common, t, 0) - alpha[:, None] * r, -np.inf)
    shift = log_w.max(-1, keepdims=True)
    w = np.exp(log_w - shift)
    z = w.sum(-1)
    mean = (w * r).sum(-1) / z
    return mean, (w * (r - mean[:, None]) ** 2).sum(-1) / z, np.log(z) + shift[:, 0]


def bisected(theta, t, steps=45):
    low, high = np.zeros(len(t)), np.ones(len(t))
    for _ in range(steps):
        middle = (low + high) / 2
        right = moments(theta, t, middle)[0] > 0
        low, high = np.where(right, middle, low), np.where(right, high, middle)
    return (low + high) / 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("spread", "apart"), SPREADS)
@pytest.mark.parametrize(("batch", "size"), SHAPES)
def test_kl_symmetry_is_the_root(batch, size, spread, apart, dtype):
    theta, t = pairs(batch, size, spread, apart, dtype=dtype)
    result = compute_alpha(theta, t)
    exact = numbers(theta, t)
    root = bisected(*exact, steps=45 if size < 10_000 else 34)
    precision = torch.finfo(dtype).eps
    assert result.dtype == dtype
    (alpha,) = numbers(result)
    mean, variance, log_z = moments(*exact, alpha)
    # what float rounding of the sums lets one know, over the slope
    slope = np.minimum(variance, moments(*exact, root)[1])
    wide = precision * (8 + abs(log_z)) * (1 + np.sqrt(variance))
    with np.errstate(divide="ignore"):
        near = np.abs(alpha - root) <= 1.1e-6 + 2 * precision + 2 * wide / slope
    unmeasurable = (np.abs(mean) <= 32 * precision) & (alpha == 0.5)
    assert np.all(near | unmeasurable)
    assert np.all(np.abs(mean) <= (1.1e-6 + 2 * precision) * variance * 2 + 40 * wide)


def test_the_same_random_pairs_are_mostly_well_determined():
    """The bounds above would be empty if rounding were always the greater part."""
    theta, t = pairs(4000, 50, 3, 3, dtype=torch.float32)
    assert np.abs(compute_alpha(theta, t).double().numpy() - bisected(*numbers(theta, t))).max() < 3e-6


@pytest.mark.parametrize("size", [2, 50, 5000])
def test_root_minimises_log_z_and_gives_chernoff_information(size):
    theta, t = pairs(300, size, 2, 2)
    alpha = compute_alpha(theta, t, tol=1e-10)
    log_q, log_z = log_mixture(theta, t, alpha)
    torch.testing.assert_close(kl(log_q, theta), -log_z, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(kl(log_q, t), -log_z, atol=1e-8, rtol=1e-8)
    for other in [*torch.linspace(0, 1, 21).tolist(), alpha - 1e-3, alpha + 1e-3]:
        assert (
            log_mixture(theta, t, other if isinstance(other, float) else other.clamp(0, 1))[1] >= log_z - 1e-13
        ).all()


def test_the_difference_of_the_kl_decreases_with_alpha():
    theta, t = pairs(200, 100, 3, 3)
    gaps = []
    for alpha in torch.linspace(0.0, 1.0, 41).tolist():
        log_q, _ = log_mixture(theta, t, alpha)
        gaps.append(kl(log_q, theta) - kl(log_q, t))
    assert (torch.stack(gaps).diff(dim=0) < 0).all()


def test_reverse_kl_symmetry_is_the_root():
    theta, t = pairs(500, 300, 3, 2)
    log_q, _ = log_mixture(theta, t, compute_alpha(theta, t, method="reverse_kl_symmetry"))
    torch.testing.assert_close(kl(theta, log_q), kl(t, log_q), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("spread", "apart"), [(1, 0.1), (3, 1), (3, 3), (8, 8)])
def test_ess_balance_is_the_root(spread, apart):
    theta, t = pairs(300, 300, spread, apart)
    alpha = compute_alpha(theta, t, method="ess_balance", tol=1e-10)
    log_q, _ = log_mixture(theta, t, alpha)
    torch.testing.assert_close(ess(log_q, theta).log(), ess(log_q, t).log(), atol=2e-7, rtol=0)
    single = compute_alpha(theta.float(), t.float(), method="ess_balance")
    assert (single.double() - alpha).abs().max() < 2e-4


def test_kl_symmetry_does_not_balance_ess():
    theta, t = pairs(20, 300, 3, 3)
    alpha = compute_alpha(theta, t)
    diagnostics = token_diagnostics(theta, t, log_mixture(theta, t, alpha)[0], alpha)
    assert diagnostics.kl_gap.max() < 1e-4
    assert (diagnostics.ess_ratio.log().abs() > 0.1).any()


def test_entropy_is_the_share():
    theta, t = torch.tensor([[0.5, 0.5, 0, 0]]).log(), torch.full((1, 4), 0.25).log()
    assert compute_alpha(theta, t, method="entropy").item() == pytest.approx(1 / 3, rel=1e-6)
    sure = torch.tensor([[1.0, 0, 0, 0]]).log()
    assert compute_alpha(sure, sure, method="entropy").item() == 0.5
    assert compute_alpha(sure, t, method="entropy").item() == 0
    assert compute_alpha(t, sure, method="entropy").item() == 1


@pytest.mark.parametrize("method", METHODS)
def test_alpha_is_one_half_where_the_distributions_agree(method):
    theta, _ = pairs(50, 1000, 5, dtype=torch.float32)
    theta[0, :900] = -torch.inf
    theta = theta.log_softmax(-1)
    assert (compute_alpha(theta, theta.clone(), method=method) - 0.5).abs().max() < 1e-7
    rounded = (theta + 3e-7 * torch.sign(torch.sin(torch.arange(1000.0)))).log_softmax(-1)
    assert (compute_alpha(theta, rounded, method=method) - 0.5).abs().max() < 1e-5


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 2**31), size=st.integers(2, 300), spread=st.floats(0.5, 8), apart=st.floats(0.2, 8))
@settings(max_examples=40, deadline=None)
def test_swapping_the_two_and_permuting_tokens(method, seed, size, spread, apart):
    theta, t = pairs(5, size, spread, apart, seed)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    alpha = compute_alpha(theta, t, method=method)
    assert ((alpha >= 0) & (alpha <= 1)).all()
    torch.testing.assert_close(alpha, 1 - compute_alpha(t, theta, method=method), atol=2e-6, rtol=0)
    torch.testing.assert_close(alpha, compute_alpha(theta[:, order], t[:, order], method=method), atol=2e-6, rtol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_does_not_depend_on_its_neighbours(method, dtype):
    easy, hard = pairs(6, 200, 3, 1, dtype=dtype), pairs(6, 200, 60, 60, seed=1, dtype=dtype)
    theta, t = (torch.cat(both) for both in zip(easy, hard, strict=True))
    theta[3, 5:9] = -torch.inf
    alone = torch.cat([compute_alpha(theta[i : i + 1], t[i : i + 1], method=method) for i in range(12)])
    assert torch.equal(compute_alpha(theta, t, method=method), alone)
    assert torch.equal(compute_alpha(theta.flip(0), t.flip(0), method=method).flip(0), alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_is_converted_to_float32(method, dtype):
    theta, t = pairs(8, 500, 2, 1, dtype=dtype)
    alpha = compute_alpha(theta, t, method=method)
    up = compute_alpha(theta.float().log_softmax(-1), t.float().log_softmax(-1), method=method)
    assert alpha.dtype == torch.float32
    assert torch.equal(alpha, up)


def test_tokens_outside_the_common_support_are_ignored():
    theta, t = pairs(200, 40, 2, 1)
    theta[:, :5], t[:, 3:9] = -torch.inf, -torch.inf
    theta, t = theta.log_softmax(-1), t.log_softmax(-1)
    alpha = compute_alpha(theta, t, tol=1e-9)
    np.testing.assert_allclose(alpha.numpy(), bisected(*numbers(theta, t)), atol=2e-9)
    assert ((alpha > 0) & (alpha < 1)).all()
    inner = (theta[:, 9:].log_softmax(-1), t[:, 9:].log_softmax(-1))
    for method in ("reverse_kl_symmetry", "ess_balance"):
        given_all = compute_alpha(theta, t, method=method, tol=1e-9)
        torch.testing.assert_close(given_all, compute_alpha(*inner, method=method, tol=1e-9), atol=1e-8, rtol=0)


def test_without_a_root_alpha_is_the_end_with_the_smaller_k():
    theta, t = torch.tensor([[0.5, 0.5, 0]]).log(), torch.tensor([[0.9, 0, 0.1]]).log()
    result = torch.cat([compute_alpha(theta, t), compute_alpha(t, theta)])
    assert 1 - 2e-6 < result[0] < 1
    assert 0 < result[1] < 2e-6


@pytest.mark.parametrize("method", SEARCHED)
def test_no_common_support_and_nan_are_refused_by_row(method):
    theta, t = pairs(4, 6)
    theta[2, :3], t[2, 3:] = -torch.inf, -torch.inf
    with pytest.raises(ValueError, match="row 2: no token has a probability under both"):
        compute_alpha(theta, t, method=method)
    theta, t = pairs(4, 6)
    t[1, 4] = torch.nan
    with pytest.raises(ValueError, match="row 1: NaN"):
        compute_alpha(theta, t, method=method)
    with pytest.raises(ValueError, match="row 1: NaN"):
        compute_alpha(theta, t, method="entropy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "kl"}, "alpha method 'kl' is not one of fixed, kl_symmetry"),
        ({"fixed_alpha": 1.5}, "fixed_alpha 1.5"),
        ({"tol": 0.0}, "tol 0.0"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        compute_alpha(*pairs(1, 3), **options)
    with pytest.raises(ValueError, match="not one shape"):
        compute_alpha(torch.zeros(1, 3), torch.zeros(1, 4))
