"""Selection of a problem's most different rollouts."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollmill.corpus.corpus import read_corpus
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.select_rollouts import select
from rollmill.jobs.improvement.diversity import farthest_first, limit_per_problem
from tests.jobs.improvement.recorded_rollouts import recorded, write_lines

SAME = "first add the tens and then add the ones to get the answer which is {}"
OTHER = "count upwards on all of your fingers until nothing is left at all"
THIRD = "a table of sums says so, and tables are never wrong about it"


def kept(tmp_path, answers, count, **filters):
    rows = [recorded(problem, "q", answer) for problem, answer in answers]
    corpus = read_corpus([write_lines(tmp_path / "rows.jsonl", rows)])
    judged = limit_per_problem(corpus, select(corpus, Filters(**filters)).judged, count)
    assert judged["row"].to_list() == list(range(len(rows)))
    return judged["drop_reason"].to_list()


def test_the_first_and_the_most_different_rollouts_are_kept(tmp_path):
    answers = [("p", SAME.format(n)) for n in (1, 2, 3)] + [("p", OTHER), ("p", THIRD)]
    over = "over_limit"
    assert kept(tmp_path, answers, 1) == [None, over, over, over, over]
    assert kept(tmp_path, answers, 3) == [None, over, over, None, None]
    assert kept(tmp_path, answers, 5) == [None] * 5
    assert kept(tmp_path, list(reversed(answers)), 3) == [None, None, None, over, over]


def test_near_duplicates_do_not_count_toward_the_limit(tmp_path):
    answers = [("p", SAME.format(1)), ("p", SAME.format(2)), ("p", OTHER)]
    assert kept(tmp_path, answers, 2, near_duplicates=0.6) == [None, "near_duplicate", None]
    assert kept(tmp_path, answers, 3, near_duplicates=0.6) == [None, "near_duplicate", None]
    assert kept(tmp_path, answers, 1, near_duplicates=0.6) == [None, "near_duplicate", "over_limit"]


def test_each_problem_has_its_own_limit(tmp_path):
    answers = [("p", SAME.format(1)), ("q", SAME.format(2)), ("p", SAME.format(3)), ("q", OTHER), ("p", OTHER)]
    assert kept(tmp_path, answers, 2) == [None, None, "over_limit", None, None]


def test_of_equally_different_ones_the_earlier_is_kept():
    rows = np.array([[1, 1], [2, 2], [3, 3], [1, 2]], dtype=np.uint32)
    assert farthest_first(rows, 2) == [0, 1]
    assert farthest_first(rows, 3) == [0, 1, 2]


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=8), st.integers(1, 9))
def test_farthest_first_keeps_distinct_rows_first(rows, count):
    signatures = np.array(rows, dtype=np.uint32)
    chosen = farthest_first(signatures, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(rows))
    assert chosen[0] == 0
    distinct = len({tuple(row) for row in rows})
    assert len({tuple(rows[index]) for index in chosen}) == min(count, distinct)
