import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.statistics.pass_at_k import best_of_k, ladder, pass_at_k


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_equals_the_share_of_successful_subsets(nck):
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


def test_pass_at_k_rejects_invalid_counts():
    for n, c, k in [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5), (0, 0, 1)]:
        with pytest.raises(ValueError, match="pass@k"):
            pass_at_k(n, c, k)


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])])
def test_ladder(n, expected):
    assert ladder(n) == expected


SCORED = st.lists(st.tuples(st.integers(-2, 2).map(float), st.booleans()), min_size=1, max_size=7)


def share_of_the_best(subset):
    best = max(score for score, _ in subset)
    right = [right for score, right in subset if score == best]
    return sum(right) / len(right)


@given(SCORED, st.data())
def test_best_of_k_equals_the_mean_over_all_subsets(scored, data):
    k = data.draw(st.integers(1, len(scored)))
    subsets = list(itertools.combinations(scored, k))
    expected = sum(map(share_of_the_best, subsets)) / len(subsets)
    scores, right = zip(*scored, strict=True)
    assert best_of_k(scores, right, k) == pytest.approx(expected, abs=1e-12)


def test_best_of_all_is_the_one_with_the_greatest_score():
    assert best_of_k([-1.0, -0.5, -2.0], [True, False, True], 3) == 0.0
    assert best_of_k([-1.0, -0.5, -2.0], [False, True, False], 3) == 1.0
    assert best_of_k([-1.0, -0.5, -2.0], [False, True, False], 1) == pytest.approx(1 / 3)
