import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.jobs.rejection_sampling import random_baseline
from rollmill.jobs.rejection_sampling.pass_at_k import ladder, pass_at_k, pass_at_ks
from rollmill.jobs.rejection_sampling.random_baseline import guess_baseline
from rollmill.statistics.summary import mean, median, spread


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_success(nck):
    n, c, k = nck
    rollouts = [i < c for i in range(n)]
    subsets = list(itertools.combinations(rollouts, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_of_many(nck):
    n, c, k = nck
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-9)
    assert 0 <= pass_at_k(n, c, k) <= 1


def test_pass_at_k_refuses_nonsense():
    for n, c, k in [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5), (0, 0, 1)]:
        with pytest.raises(ValueError, match="pass@k"):
            pass_at_k(n, c, k)


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])])
def test_ladder(n, expected):
    assert ladder(n) == expected


def test_problems_with_too_few_rollouts_are_left_out_and_counted():
    one, two, four = pass_at_ks([(4, 2), (4, 0), (1, 1), (0, 0)], 4)
    assert (one.value, one.problems, one.left_out) == (pytest.approx((0.5 + 0 + 1) / 3), 3, 1)
    assert (two.value, two.problems, two.left_out) == (pytest.approx((1 - 1 / 6) / 2), 2, 2)
    assert (four.value, four.problems, four.left_out) == (0.5, 2, 2)
    assert pass_at_ks([(1, 1)], 4)[-1].value is None
    assert pass_at_ks([], 2)[0].problems == 0


def baseline(truths, draws):
    truths = np.array(truths, dtype=float)
    return guess_baseline(truths, truths, np.broadcast_to(np.array(draws, float), truths.shape), np.zeros(truths.size))


@given(st.lists(st.integers(-4, 4).map(lambda i: i / 2), min_size=1, max_size=5), st.integers(1, 4))
def test_guessing_is_the_mean_over_all_draws(truths, n):
    draws = list(itertools.product(truths, repeat=n))
    exact = np.mean([min(abs(t - g) for g in draw) for t in truths for draw in draws])
    assert baseline(truths, n).mean_least_error == pytest.approx(exact, abs=1e-12)


def test_guessing_with_a_number_of_draws_per_problem():
    # truth 0: one draw of {0, 1} errs 0.5 on average; truth 1: two draws both miss with 1/4
    assert baseline([0, 1], [1, 2]).mean_least_error == pytest.approx((0.5 + 0.25) / 2)


def test_guessing_agrees_with_a_simulation():
    rng = np.random.default_rng(1)
    truths = np.round(rng.normal(size=60), 1)
    drawn = rng.choice(truths, size=(20_000, 1, 8))
    simulated = np.abs(drawn - truths[None, :, None]).min(axis=2).mean()
    assert baseline(truths, 8).mean_least_error == pytest.approx(simulated, rel=0.01)


@pytest.mark.timeout(120)
def test_guessing_for_ten_thousand_distinct_truths_is_exact():
    truths = np.random.default_rng(0).normal(size=10_000)
    got = baseline(truths, 16)
    assert got.sampled == got.problems == 10_000


def test_guessing_samples_above_its_budget(monkeypatch):
    truths = np.random.default_rng(0).normal(size=2_000)
    exact = baseline(truths, 4)
    monkeypatch.setattr(random_baseline, "_BUDGET", 2_000 * 500)
    sampled = baseline(truths, 4)
    assert (sampled.sampled, sampled.problems) == (500, 2_000)
    assert sampled == baseline(truths, 4)
    assert sampled.mean_least_error == pytest.approx(exact.mean_least_error, rel=0.3)


def test_guessing_says_why_not():
    assert baseline([], 4).reason == "no problem has a least error"
    with np.errstate(all="ignore"):
        assert "too large" in baseline([1e308, -1e308], 1).reason


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1, max_size=30))
def test_spread_of_any_finite_numbers_is_finite(numbers):
    got = spread(np.array(numbers))
    assert got.min <= got.p25 <= got.median <= got.p75 <= got.p90 <= got.p95 <= got.max
    assert math.isfinite(mean(numbers))
    close = 1e-9 * max(map(abs, numbers))
    assert median(numbers) == pytest.approx(got.median, rel=1e-9, abs=close)
    assert mean(numbers) == pytest.approx(got.mean, rel=1e-6, abs=close)


def test_spread_by_hand():
    got = spread(np.array([0.0, 1.0, 2.0, 5.0]))
    assert (got.mean, got.median, got.min, got.max, got.count) == (2.0, 1.5, 0.0, 5.0, 4)
    assert (got.p25, got.p75, got.std) == (0.75, 2.75, pytest.approx(math.sqrt(3.5)))
    assert (spread(np.array([])), mean([]), median([])) == (None, None, None)
    assert mean([0.1] * 10) == 0.1
