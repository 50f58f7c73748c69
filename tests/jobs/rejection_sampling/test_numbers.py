import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.jobs.rejection_sampling import random_baseline
from rollmill.jobs.rejection_sampling.random_baseline import guess_baseline
from rollmill.statistics.summary import mean, median, summarize


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
    actual = baseline(truths, 16)
    assert actual.sampled == actual.problems == 10_000


def test_guessing_samples_above_its_budget(monkeypatch):
    truths = np.random.default_rng(0).normal(size=2_000)
    exact = baseline(truths, 4)
    monkeypatch.setattr(random_baseline, "_BUDGET", 2_000 * 500)
    sampled = baseline(truths, 4)
    assert (sampled.sampled, sampled.problems) == (500, 2_000)
    assert sampled == baseline(truths, 4)
    assert sampled.mean_least_error == pytest.approx(exact.mean_least_error, rel=0.3)


def test_a_missing_baseline_has_a_reason():
    assert baseline([], 4).reason == "no problem has a least error"
    with np.errstate(all="ignore"):
        assert "too large" in baseline([1e308, -1e308], 1).reason


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1, max_size=30))
def test_spread_of_any_finite_numbers_is_finite(numbers):
    actual = summarize(np.array(numbers))
    assert actual.min <= actual.p25 <= actual.median <= actual.p75 <= actual.p90 <= actual.p95 <= actual.max
    assert math.isfinite(mean(numbers))
    close = 1e-9 * max(map(abs, numbers))
    assert median(numbers) == pytest.approx(actual.median, rel=1e-9, abs=close)
    assert mean(numbers) == pytest.approx(actual.mean, rel=1e-6, abs=close)


def test_spread_by_hand():
    actual = summarize(np.array([0.0, 1.0, 2.0, 5.0]))
    assert (actual.mean, actual.median, actual.min, actual.max, actual.count) == (2.0, 1.5, 0.0, 5.0, 4)
    assert (actual.p25, actual.p75, actual.std) == (0.75, 2.75, pytest.approx(math.sqrt(3.5)))
    assert (summarize(np.array([])), mean([]), median([])) == (None, None, None)
    assert mean([0.1] * 10) == 0.1
