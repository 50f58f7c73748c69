"""Paired comparison of two sets of rollouts."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.reports.paired_comparison import compare_pair, compare_with_first


def table(**problems):
    rows = [(name, success) for name, successes in problems.items() for success in successes]
    schema = {"instance_id": pl.String, "success": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


BEFORE = table(a=[False, False], b=[True, False], c=[True], d=[True, True], only=[True])
AFTER = table(c=[False, None], a=[False, True], b=[True, True], d=[True, True], other=[False])


def test_problems_that_both_were_judged_on_are_paired_and_flips_counted():
    paired = compare_pair(("one", BEFORE), ("two", AFTER))
    assert [problem.instance_id for problem in paired.problems] == ["a", "b", "c", "d"]
    assert [str(problem) for problem in paired.flipped("solved")] == ["a (0 of 2, now 1 of 2)"]
    assert [str(problem) for problem in paired.flipped("unsolved")] == ["c (1 of 1, now 0 of 1)"]
    assert paired.difference.mean == pytest.approx((0.5 + 0.5 - 1 + 0) / 4)
    assert "better on 2, worse on 1, equal on 1" in "\n".join(paired.lines())


def test_too_few_problems_have_no_judgement():
    assert "too few problems to tell" in "\n".join(compare_pair(("one", BEFORE), ("two", AFTER)).lines())


def test_difference_beyond_noise_is_reported():
    worse = {f"p{index}": [index % 5 == 0] for index in range(60)}
    better = {f"p{index}": [index % 5 != 0] for index in range(60)}
    [forward, back] = [
        compare_pair(("x", table(**x)), ("y", table(**y))) for x, y in ((worse, better), (better, worse))
    ]
    assert "higher beyond noise" in forward.lines()[1]
    assert "lower beyond noise" in back.lines()[1]
    assert "and 38 more" in forward.lines()[3]


def test_sets_without_a_shared_problem_are_not_compared():
    paired = compare_pair(("one", table(a=[True])), ("two", table(b=[True], a=[None])))
    assert paired.lines() == ["two against one: they share no judged problem"]


def test_each_is_compared_with_the_first():
    tables = [("one", BEFORE), ("two", AFTER), ("three", BEFORE)]
    assert [(pair.before, pair.after) for pair in compare_with_first(tables)] == [("one", "two"), ("one", "three")]


SETS = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.booleans(), min_size=1, max_size=3), max_size=6)


@given(SETS, SETS)
def test_the_interval_contains_the_difference_and_turns_with_the_order(before, after):
    forward = compare_pair(("one", table(**before)), ("two", table(**after)))
    back = compare_pair(("two", table(**after)), ("one", table(**before)))
    assert len(forward.flipped("solved")) == len(back.flipped("unsolved"))
    if forward.difference:
        assert forward.difference.low - 1e-9 <= forward.difference.mean <= forward.difference.high + 1e-9
        assert forward.difference.mean == pytest.approx(-back.difference.mean)
