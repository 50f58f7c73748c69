import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.statistics.sampling_curves import (
    ANY_RIGHT,
    BEST_REWARD,
    LIKELIEST,
    LIKELY_MAJORITY,
    MAJORITY,
    REWARD_MAJORITY,
    Attempt,
    CurveTally,
)

ATTEMPTS = st.builds(
    Attempt,
    right=st.booleans(),
    answer=st.sampled_from(["a", "b", None]),
    reward=st.sampled_from([0.0, 0.5, 1.0]),
    logprob=st.sampled_from([-0.1, -1.0]),
)


def curves(problems, num_rollout):
    tally = CurveTally(num_rollout)
    for attempts in problems:
        tally.add(attempts)
    return {curve.name: curve.points for curve in tally.curves()}


def attempts(*right, **fields):
    return [Attempt(right=bool(each), answer="x" if each else "y", **fields) for each in right]


@given(st.lists(st.lists(ATTEMPTS, max_size=4), max_size=8))
def test_every_interval_contains_its_point(problems):
    for points in curves(problems, 4).values():
        for point in points:
            assert point.problems + point.left_out == len(problems)
            assert (point.value is None) == (point.problems == 0)
            if point.value is not None:
                assert 0 <= point.low <= point.value + 1e-12
                assert point.value <= point.high + 1e-12 <= 1 + 2e-12


def test_problems_with_too_few_rollouts_are_left_out_and_counted():
    [at_1, at_2, at_4] = curves([attempts(1, 1, 0, 0), attempts(0, 0, 0, 0), attempts(1), []], 4)[ANY_RIGHT]
    assert (at_1.value, at_1.problems, at_1.left_out) == (pytest.approx((0.5 + 0 + 1) / 3), 3, 1)
    assert (at_2.value, at_2.problems, at_2.left_out) == (pytest.approx((1 - 1 / 6) / 2), 2, 2)
    assert (at_4.value, at_4.problems, at_4.left_out) == (0.5, 2, 2)


def test_without_problems_there_are_no_values():
    [point] = curves([], 1)[ANY_RIGHT]
    assert (point.value, point.low, point.problems) == (None, None, 0)


def test_rewards_equal_to_success_have_no_curve():
    known = curves([attempts(1, 0), attempts(0, 0)], 2)
    assert list(known) == [ANY_RIGHT, MAJORITY]
    assert list(curves([[Attempt(right=True, reward=1.0)]], 1)) == [ANY_RIGHT]


def test_graded_rewards_and_logprobs_have_curves():
    problem = [Attempt(True, "x", 0.9, -0.5), Attempt(False, "y", 0.2, -0.1), Attempt(False, "y", 0.3, -0.2)]
    known = {name: points[-1].value for name, points in curves([problem], 3).items()}
    assert known == {
        ANY_RIGHT: 1.0,
        MAJORITY: 0.0,
        LIKELIEST: 0.0,
        LIKELY_MAJORITY: 0.0,
        BEST_REWARD: 1.0,
        REWARD_MAJORITY: 1.0,
    }


def test_a_problem_without_recorded_probabilities_is_left_out_of_their_curve():
    problems = [attempts(1, 0, logprob=-1.0), attempts(1, 0)]
    assert [point.left_out for point in curves(problems, 2)[LIKELIEST]] == [1, 1]


@pytest.mark.parametrize(("right", "low", "high"), [(1, 0.7, 1.0), (0, 0.0, 0.3)])
def test_equal_values_have_a_wilson_interval(right, low, high):
    [point] = curves([attempts(right)] * 10, 1)[ANY_RIGHT]
    assert (point.value, round(point.low, 1), round(point.high, 1)) == (right, low, high)


def test_the_same_rollouts_make_the_same_intervals():
    problems = [attempts(1, 0, 0), attempts(0, 0, 1), attempts(1, 1, 1)]
    assert curves(problems, 3) == curves(problems, 3)
    assert all(math.isfinite(point.low) for point in curves(problems, 3)[MAJORITY])
