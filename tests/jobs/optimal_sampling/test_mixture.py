"""The mixture and its diagnostics are compared with their definitions in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from rollmill.jobs.optimal_sampling.mixture import entropy, ess, kl, log_mixture, token_diagnostics
from tests.jobs.optimal_sampling.distributions import numbers, pairs

torch.set_num_threads(1)


def with_holes(dtype=torch.float32):
    theta, t = pairs(6, 20, 2, 2, dtype=dtype)
    theta[1, 3], t[2, 4], theta[3, 7], t[3, 7] = (-torch.inf,) * 4
    return theta.log_softmax(-1), t.log_softmax(-1)


@pytest.mark.parametrize("alpha", [1e-6, 0.3, 0.5, 0.9, 1 - 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mixture_is_the_geometric_mean(alpha, dtype):
    theta, t = with_holes(dtype)
    log_q, log_z = log_mixture(theta, t, alpha)
    p_theta, p_t = (np.exp(item) for item in numbers(theta, t))
    terms = p_theta**alpha * p_t ** (1 - alpha)
    close = 2e-6 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(log_q.exp().numpy(), terms / terms.sum(-1, keepdims=True), rtol=close * 10, atol=1e-30)
    np.testing.assert_allclose(log_z.numpy(), np.log(terms.sum(-1)), atol=close)
    assert not log_q.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alpha_0_and_1_are_the_models_bit_for_bit(dtype):
    theta, t = with_holes(dtype)
    assert torch.equal(log_mixture(theta, t, 1.0)[0], theta)
    assert torch.equal(log_mixture(theta, t, 0.0)[0], t)
    rows = torch.tensor([0, 1, 0.5, 1, 0, 0.5], dtype=dtype)
    log_q, log_z = log_mixture(theta, t, rows)
    assert torch.equal(log_q[[1, 3]], theta[[1, 3]])
    assert torch.equal(log_q[[0, 4]], t[[0, 4]])
    assert log_z[[0, 1, 3, 4]].tolist() == [0] * 4
    assert torch.equal(log_q[[2, 5]], log_mixture(theta[[2, 5]], t[[2, 5]], 0.5)[0])


def test_distant_distributions_do_not_underflow():
    theta, t = torch.tensor([[0.0, -300.0, -250.0]]), torch.tensor([[-300.0, 0.0, -250.0]])
    log_q, log_z = log_mixture(theta, t, 0.5)
    assert log_z.item() == pytest.approx(-150 + np.log(2), rel=1e-6)
    assert log_q.tolist()[0] == pytest.approx([-np.log(2), -np.log(2), -100 - np.log(2)], rel=1e-6)


def test_half_precision_is_normalised_again():
    theta, t = pairs(4, 3000, dtype=torch.bfloat16)
    log_q, _ = log_mixture(theta, t, 1.0)
    assert log_q.dtype == torch.float32
    assert log_q.logsumexp(-1).abs().max() < 1e-5
    assert theta.float().logsumexp(-1).abs().max() > 1e-5


def test_no_token_in_common_is_refused():
    theta, t = torch.tensor([[0.5, 0.5], [1, 0]]).log(), torch.tensor([[0.5, 0.5], [0, 1]]).log()
    with pytest.raises(ValueError, match="row 1: no token"):
        log_mixture(theta, t, 0.5)
    assert torch.equal(log_mixture(theta, t, 0.0)[0], t)
    with pytest.raises(ValueError, match="row 0: alpha"):
        log_mixture(theta, t, 1.5)
    with pytest.raises(ValueError, match="row 1: NaN"):
        log_mixture(torch.tensor([[0.0], [torch.nan]]), torch.zeros(2, 1), 0.5)


def test_diagnostics_equal_their_definitions():
    theta, t = pairs(50, 30, 2, 1)
    log_q, _ = log_mixture(theta, t, 0.4)
    p_theta, p_t, q = (np.exp(item) for item in numbers(theta, t, log_q))
    alpha = torch.full((50,), 0.4)
    for dtype, close in ((torch.float64, 1e-5), (torch.float32, 1e-4)):
        diagnostics = token_diagnostics(theta.to(dtype), t.to(dtype), log_q.to(dtype), alpha)
        expected = {
            "alpha": np.full(50, 0.4),
            "kl_theta": (q * np.log(q / p_theta)).sum(-1),
            "kl_t": (q * np.log(q / p_t)).sum(-1),
            "kl_gap": np.abs((q * np.log(p_t / p_theta)).sum(-1)),
            "ess_theta": 1 / (p_theta**2 / q).sum(-1),
            "ess_t": 1 / (p_t**2 / q).sum(-1),
            "ess_ratio": (p_t**2 / q).sum(-1) / (p_theta**2 / q).sum(-1),
            "entropy_theta": -(p_theta * np.log(p_theta)).sum(-1),
            "entropy_t": -(p_t * np.log(p_t)).sum(-1),
        }
        assert set(expected) == set(diagnostics._fields)
        for name, value in expected.items():
            options = getattr(diagnostics, name)
            assert options.dtype == torch.float32
            np.testing.assert_allclose(options.numpy(), value, rtol=close, atol=1e-6, err_msg=name)


def test_diagnostics_outside_a_support():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[1.0, 0.0, 0.0]]).log()
    assert entropy(p).item() == pytest.approx(np.log(2))
    assert kl(q, p).item() == pytest.approx(np.log(2))
    assert kl(p, q).item() == torch.inf
    assert ess(p, q).item() == pytest.approx(0.5)
    assert ess(q, p).item() == 0
    theta, t = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.5, 0.0, 0.5]]).log()
    diagnostics = token_diagnostics(theta, t, log_mixture(theta, t, 0.5)[0], torch.tensor([0.5]))
    assert (
        diagnostics.ess_theta.item(),
        diagnostics.ess_t.item(),
        diagnostics.ess_ratio.item(),
        diagnostics.kl_gap.item(),
    ) == (
        0,
        0,
        1,
        0,
    )
    assert diagnostics.kl_t.item() == pytest.approx(np.log(2))


def test_a_distribution_against_itself():
    p, _ = pairs(5, 1000, dtype=torch.float32)
    assert kl(p, p).tolist() == [0] * 5
    torch.testing.assert_close(ess(p, p), torch.ones(5))


def test_small_kl_is_accurate():
    """D near its resolution: the KL of distributions that differ by a thousandth."""
    theta, t = pairs(20, 500, 2, 1e-2, dtype=torch.float32)
    log_q, log_z = log_mixture(theta, t, 0.5)
    torch.testing.assert_close(kl(log_q, theta), -log_z, rtol=0.05, atol=1e-6)


def test_the_package_is_imported_without_torch():
    lines = (
        "import sys, rollmill.optimal_sampling as package",
        "assert 'torch' not in sys.modules",
        "package.compute_alpha",
        "assert 'torch' in sys.modules",
        "assert not {'transformers', 'pydantic', 'orjson'} & set(sys.modules)",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
