import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.statistics.accuracy import accuracy, paired_difference


def table(outcomes):
    """Return a table of rollouts; `outcomes` maps problems to successes (True, False, None)."""
    rows = [(problem, success) for problem, successes in outcomes.items() for success in successes]
    return pl.DataFrame(rows, schema={"instance_id": pl.String, "success": pl.Boolean}, orient="row")


def test_accuracy_is_the_mean_over_problems_not_over_rollouts():
    result = accuracy(table({"a": [True], "b": [False, False, False], "c": [None]}))
    assert (result.problems, result.rollouts, result.failed, result.mean) == (2, 4, 1, 0.5)
    assert 0 <= result.low <= 0.5 <= result.high <= 1


def test_accuracy_without_verdicts_is_refused():
    with pytest.raises(InputError, match="none of 1 rollouts has a verdict"):
        accuracy(table({"a": [None]}))
    with pytest.raises(InputError, match="share no judged problem"):
        paired_difference(table({"a": [True]}), table({"b": [True]}))


def test_paired_difference_is_significant_where_intervals_overlap():
    """Every problem is better by 0.1, while problems differ much from each other."""
    hard = {f"p{n}": [index < n for index in range(10)] for n in range(10)}
    easier = {f"p{n}": [index < n + 1 for index in range(10)] for n in range(10)}
    difference = paired_difference(table(hard), table(easier))
    assert difference.mean == pytest.approx(0.1)
    assert difference.better
    assert not difference.worse
    assert accuracy(table(hard)).high > accuracy(table(easier)).low
    assert paired_difference(table(easier), table(hard)).worse


def test_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(1)
    covered = 0
    for run in range(200):
        result = accuracy(table({f"p{n}": [bool(rng.random() < 0.3)] for n in range(100)}), seed=run)
        covered += result.low <= 0.3 <= result.high
    assert 176 <= covered <= 200


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8), st.integers(0, 9))
def test_difference_has_the_right_sign_and_bounds(shares, seed):
    before = table({f"p{n}": [index < first for index in range(4)] for n, (first, _) in enumerate(shares)})
    after = table({f"p{n}": [index < other for index in range(4)] for n, (_, other) in enumerate(shares)})
    difference = paired_difference(before, after, seed=seed)
    assert -1 <= difference.low <= difference.mean + 1e-9
    assert difference.mean - 1e-9 <= difference.high <= 1
    assert difference == paired_difference(before.reverse(), after.sample(fraction=1, shuffle=True, seed=1), seed=seed)
    assert difference.mean == pytest.approx(accuracy(after).mean - accuracy(before).mean)


def test_few_problems_have_no_significant_difference():
    few = paired_difference(table({"a": [False]}), table({"a": [True]}))
    assert (few.low, few.better) == (1.0, False)
