"""Temperature, top-k, top-p, and draws by the inverse CDF."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.jobs.optimal_sampling.truncation import constrain_support, draw, sampling_distribution
from tests.jobs.optimal_sampling.distributions import pairs

torch.set_num_threads(1)

P = torch.tensor([[0.1, 0.4, 0.2, 0.05, 0.25]])


def kept(p=P, **options):
    result = sampling_distribution(p.log(), **({"temperature": 1.0, "top_p": 1.0, "top_k": -1} | options))
    torch.testing.assert_close(result.sum(-1), torch.ones(len(p)))
    return result[0].nonzero().squeeze(-1).tolist()


def test_no_truncation_gives_q():
    log_q, _ = pairs(3, 100)
    for top_k in (-1, 0, 100, 1000):
        result = sampling_distribution(log_q, temperature=1.0, top_p=1.0, top_k=top_k)
        torch.testing.assert_close(result, log_q.exp(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("top_p", "tokens"), [(0, [1]), (0.39, [1]), (0.41, [1, 4]), (0.66, [1, 2, 4]), (0.96, [0, 1, 2, 3, 4])]
)
def test_top_p_keeps_the_token_at_its_boundary(top_p, tokens):
    assert kept(top_p=top_p) == tokens


@pytest.mark.parametrize(
    ("top_k", "tokens"), [(1, [1]), (2, [1, 4]), (4, [0, 1, 2, 4]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])]
)
def test_top_k_keeps_the_most_probable_tokens(top_k, tokens):
    assert kept(top_k=top_k) == tokens


def test_equally_probable_tokens_are_kept_together():
    p = torch.tensor([[0.125, 0.25, 0.25, 0.25, 0.125]])
    assert kept(p, top_k=2) == [1, 2, 3]
    assert kept(p, top_p=0.5) == [1, 2, 3]
    assert kept(p, temperature=0) == [1]


def test_top_p_applies_after_top_k():
    assert kept(top_k=2, top_p=0.6) == [1]
    assert kept(top_p=0.6) == [1, 4]


def test_temperature_is_applied_first():
    result = sampling_distribution(P.double().log(), temperature=0.5, top_p=0.9, top_k=-1)
    squares = P.double() ** 2 / (P.double() ** 2).sum()
    chosen = squares >= 0.04 / (P.double() ** 2).sum() - 1e-9  # 0.16 + 0.0625 is 83% of it
    torch.testing.assert_close(result, torch.where(chosen, squares, 0) / squares[chosen].sum())


def test_tokens_outside_the_support_stay_out():
    p = torch.tensor([[0.5, 0.0, 0.5, 0.0]])
    assert kept(p, top_k=3) == [0, 2]
    assert kept(p, top_p=0.9999999) == [0, 2]
    assert kept(p, temperature=3.0) == [0, 2]


@given(seed=st.integers(0, 2**31), size=st.integers(1, 3000), top_p=st.floats(0, 1), spread=st.floats(0, 4))
@settings(max_examples=60, deadline=None)
def test_top_p_is_the_smallest_set_that_reaches_it(seed, size, top_p, spread):
    log_q, _ = pairs(2, size, spread, seed=seed)
    for p, result in zip(
        log_q.exp(), sampling_distribution(log_q, temperature=1.0, top_p=top_p, top_k=-1), strict=True
    ):
        ordered = np.sort(p.numpy())[::-1]
        needed = min(int((np.cumsum(ordered) < top_p - 1e-12).sum()) + 1, size)
        count = int((result > 0).sum())
        assert count >= needed - (top_p == 1)
        assert ordered[:count].sum() - ordered[count - 1] * (ordered == ordered[count - 1]).sum() < top_p + 1e-9
        assert (p[result > 0].min() > p[result == 0]).all() or count == size


def test_the_support_of_t_constrains_both():
    log_theta = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log()
    log_t = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    theta, t = constrain_support(log_theta, log_t, top_p=1.0, top_k=2)
    assert theta.exp().tolist()[0] == pytest.approx([0, 0, 0.5, 0.5])
    assert t.exp().tolist()[0] == pytest.approx([0, 0, 3 / 7, 4 / 7])
    same = constrain_support(log_theta, log_t, top_p=1.0, top_k=0)
    assert torch.equal(same[0], log_theta)
    assert torch.equal(same[1], log_t)
    with pytest.raises(ValueError, match="row 0: theta has none"):
        constrain_support(torch.tensor([[1.0, 0, 0, 0]]).log(), log_t, top_p=0.5, top_k=-1)


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_p": 1.1}, {"top_p": -0.1}])
def test_invalid_options_are_refused(options):
    with pytest.raises(ValueError, match=r"temperature -1.0 is negative|top_p .* is not in"):
        kept(**options)


def test_draws_follow_the_inverse_cdf():
    p = torch.tensor([0.25, 0, 0.5, 0.25, 0])
    uniforms = torch.tensor([0, 0.2499, 0.25, 0.5, 0.7499, 0.75, 0.9999999, 1.0])
    assert draw(p.expand(8, 5), uniforms).tolist() == [0, 0, 2, 2, 2, 3, 3, 3]


@given(seed=st.integers(0, 2**31), size=st.integers(1, 2000), spread=st.floats(0, 30), double=st.booleans())
@settings(max_examples=80, deadline=None)
def test_no_token_of_probability_0_is_drawn(seed, size, spread, double):
    log_p, _ = pairs(1, size, spread, seed=seed)
    p = log_p.exp().to(torch.float64 if double else torch.float32)
    p[0, torch.rand(size, generator=torch.Generator().manual_seed(seed)) < 0.5] = 0
    p[0, seed % size] = 0.1
    edges = torch.cat([p[0].double().cumsum(0) / p.double().sum(), torch.tensor([0.0, 1 - 2**-24, 1 - 2**-53, 1.0])])
    tokens = draw(p.expand(len(edges), size), edges.clamp(0, 1))
    assert (p[0, tokens] > 0).all()


def test_draws_have_the_distribution():
    p = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01])
    uniforms = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = draw(p.expand(100_000, 5), uniforms).bincount(minlength=5).double()
    expected = p.double() * 100_000
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-square, 4 degrees, 0.1%


def test_rare_token_late_in_a_large_vocabulary_keeps_its_share():
    """A float32 CDF of 150,000 tokens would give it none or twice as much."""
    p = torch.full((1, 150_000), 1 / 150_000)
    p[0, -1] = 1e-9
    total = p.double().sum().item()
    near = torch.tensor([1 - 0.5e-9 / total, 1 - 1.5e-9 / total], dtype=torch.float64)
    assert draw(p.expand(2, -1), near).tolist() == [149_999, 149_998]


@pytest.mark.parametrize("bad", [torch.zeros(2, 3), torch.tensor([[1.0, 0, 0], [torch.nan, 0.5, 0.5]])])
def test_nothing_to_draw_from_is_refused(bad):
    with pytest.raises(ValueError, match=r"row [01]: no probability"):
        draw(bad, torch.zeros(2))
