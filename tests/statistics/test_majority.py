import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.statistics.majority import Votes, majority_at_ks, weighted_majority

ANSWERS = st.lists(st.sampled_from(["a", "a", "b", "c", "d", None]), min_size=1, max_size=8)


def by_hand(answers, right, weights, k):
    """Return the mean over all subsets; an answer is right with its share of right rollouts."""
    shares = defaultdict(list)
    for answer, each in zip(answers, right, strict=True):
        shares[answer].append(each)
    won = []
    for subset in itertools.combinations(range(len(answers)), k):
        totals = defaultdict(float)
        for index in subset:
            if answers[index] is not None:
                totals[answers[index]] += weights[index]
        best = [answer for answer in totals if totals[answer] == max(totals.values())]
        won.append(sum(sum(shares[answer]) / len(shares[answer]) for answer in best) / len(best) if best else 0.0)
    return sum(won) / len(won)


@given(ANSWERS)
def test_majority_equals_the_mean_over_all_subsets(answers):
    right = [float(answer == "a") for answer in answers]
    ks = list(range(1, len(answers) + 1))
    given_answers = [answer for answer in dict.fromkeys(answers) if answer is not None]
    votes = [Votes(answers.count(answer), float(answer == "a")) for answer in given_answers]
    expected = [by_hand(answers, right, [1.0] * len(answers), k) for k in ks]
    assert majority_at_ks(votes, answers.count(None), ks) == pytest.approx(expected, abs=1e-9)


@given(ANSWERS, st.data())
def test_weighted_majority_equals_the_mean_over_all_subsets(answers, data):
    numbers = st.integers(0, 3).map(float)
    weights = data.draw(st.lists(numbers, min_size=len(answers), max_size=len(answers)))
    right = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=len(answers), max_size=len(answers)))
    k = data.draw(st.integers(1, len(answers)))
    expected = by_hand(answers, right, weights, k)
    assert weighted_majority(answers, right, weights, k) == pytest.approx(expected, abs=1e-9)


def test_ties_are_split_evenly():
    assert majority_at_ks([Votes(1, 1.0), Votes(1, 0.0), Votes(1, 0.0)], 0, [3]) == [pytest.approx(1 / 3)]


def test_rollouts_without_an_answer_do_not_vote():
    assert majority_at_ks([Votes(1, 1.0)], 3, [4]) == [1.0]
    assert majority_at_ks([], 4, [1, 4]) == [0.0, 0.0]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 10))
def test_sampled_subsets_approximate_the_expectation(counts, blank):
    """Sampling is used for more rollouts than the exact sum can handle quickly."""
    counts = counts if sum(counts) + blank <= 64 else counts[:1]
    votes = [Votes(count, float(index == 0)) for index, count in enumerate(counts)]
    total = sum(counts) + blank
    answers = [index for index, count in enumerate(counts) for _ in range(count)] + [None] * blank
    right = [float(answer == 0) for answer in answers]
    k = max(1, total // 2)
    [exact] = majority_at_ks(votes, blank, [k])
    assert weighted_majority(answers, right, [1.0] * total, k) == pytest.approx(exact, abs=0.1)


def test_many_rollouts_are_sampled_and_the_same_every_time():
    votes = [Votes(60, 1.0), Votes(40, 0.0)]
    first = majority_at_ks(votes, 0, [1, 16, 100])
    assert first == majority_at_ks(votes, 0, [1, 16, 100])
    assert first[0] == pytest.approx(0.6, abs=0.07)
    assert first[2] == 1.0
