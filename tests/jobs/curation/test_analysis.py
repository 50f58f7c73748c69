"""The numbers and notes of an analysis, and its text."""

import math

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from rollmill.corpus.table import empty_table
from rollmill.jobs.curation.analysis import analyse
from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.jobs.curation.analysis_text import analysis_rows, analysis_text
from tests.jobs.curation.made_rollouts import made_table


def wrong(**more):
    return {"reward": 0.0, "success": False, "claimed_success": False, **more}


def right(**more):
    return {"reward": 1.0, "success": True, "claimed_success": True, **more}


def failed(**more):
    return {"status": "failed", "error_type": "Timeout", **more}


def test_failed_rollouts_are_neither_right_nor_wrong():
    analysis = analyse(made_table(right(), wrong(), wrong(), failed()))
    assert (analysis.rollouts, analysis.judged, analysis.failed) == (4, 3, 1)
    assert (analysis.verdicts, analysis.successes) == (3, 1)
    assert analysis.success_rate == 1 / 3
    assert analysis.reward_missing == 0
    assert analysis.errors == {"Timeout": 1}


def test_the_interval_is_wilsons():
    low, high = analyse(made_table(*[right()] * 2, *[wrong()] * 8)).success_interval
    assert (round(low, 4), round(high, 4)) == (0.0567, 0.5098)
    assert analyse(made_table(right())).success_interval[1] == 1.0


def test_claimed_success_that_the_evaluation_denies():
    analysis = analyse(made_table(wrong(claimed_success=True), right(), failed(claimed_success=True)))
    assert analysis.contradicted == 1
    assert "1 rollout is recorded as success, but the evaluation says no: it is counted as not successful" in (
        analysis.notes
    )


def test_rewards_of_a_few_values_get_a_bar_each():
    analysis = analyse(made_table(*({"reward": reward} for reward in [-0.2, 0.0, 0.0, -0.0, 0.3, None])))
    assert analysis.reward_histogram.values == [-0.2, 0.0, 0.3]
    assert analysis.reward_histogram.counts == [1, 3, 1]
    assert analysis.reward.model_dump() == pytest.approx(
        {
            "count": 5,
            "mean": 0.02,
            "std": 0.16,
            "min": -0.2,
            "p25": 0,
            "median": 0,
            "p75": 0,
            "p90": 0.18,
            "p95": 0.24,
            "max": 0.3,
        }
    )
    assert analysis.reward_missing == 1


def test_unmeasured_numbers_are_none():
    analysis = analyse(made_table({}, {}))
    known = {name for name, value in analysis.model_dump().items() if isinstance(value, dict) and value}
    assert known == {"samples_per_problem", "samples_counts"}
    assert analysis.success_rate is None
    assert analysis.total_model_calls is None
    assert analysis.problems_unjudged == 1


def test_lengths_skip_rows_without_them():
    analysis = analyse(made_table({"messages": 2, "model_calls": 3}, {"messages": 6}, {}))
    assert (analysis.messages.count, analysis.messages.mean, analysis.messages.max) == (2, 4, 6)
    assert analysis.tokens is None
    assert analysis.total_model_calls == 3


def test_problems_are_counted_by_their_successes():
    table = made_table(
        right(instance_id="all"),
        right(instance_id="all"),
        failed(instance_id="all"),
        wrong(instance_id="none"),
        wrong(instance_id="some", reward=-3.0),
        right(instance_id="some"),
        failed(instance_id="unjudged"),
    )
    analysis = analyse(table)
    assert analysis.problems == 4
    assert analysis.problems_all_right == analysis.problems_none_right == analysis.problems_some_right == 1
    assert analysis.problems_unjudged == 1
    assert analysis.samples_counts == {1: 2, 2: 1, 3: 1}
    assert analysis.problem_reward_histogram.values == [-1.0, 0.0, 1.0]


def test_many_sample_counts_are_summarized():
    table = made_table(*({"instance_id": str(size)} for size in range(1, 31) for _ in range(size)))
    analysis = analyse(table)
    assert analysis.samples_counts is None
    assert (analysis.samples_per_problem.median, analysis.samples_per_problem.max) == (15.5, 30)
    assert "median; 1 to 30" in analysis_text(analysis, "t")


def test_duplicates_are_counted_within_a_problem_without_empty_ones():
    hashes = [("a", 1), ("a", 1), ("a", 2), ("b", 1), ("c", 5), ("c", 5), ("c", None)]
    table = made_table(
        *({"instance_id": name, "completion_hash": value} for name, value in hashes),
        *({"instance_id": "d", "completion_hash": 9, "empty": True} for _ in range(3)),
    )
    analysis = analyse(table)
    assert analysis.duplicates == 2
    assert analysis.duplicate_share == 2 / 6
    assert (analysis.repeated_problems, analysis.identical_problems) == (2, 1)
    assert analysis.empty == 3


def test_kinds_are_sorted_by_count_and_capped():
    table = made_table(*({"exit_status": f"status {index:03}"} for index in range(60)), {"exit_status": "status 050"})
    statuses = analyse(table).exit_statuses
    assert list(statuses.items())[:2] == [("status 050", 2), ("status 000", 1)]
    assert statuses["(20 other kinds)"] == 20
    assert sum(statuses.values()) == 61


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ([wrong()] * 10, "none of 10 judged rollouts is right"),
        ([right()] * 10, "all of 10 judged rollouts are right"),
        ([*[right()] * 5, *[wrong()] * 5, failed()], "1 of 11 rollouts failed outside the model (Timeout 1)"),
        ([right(status="unparseable"), wrong()], "50.0% of the answers cannot be parsed"),
        (
            [right(finish_reason="length", truncated=True), wrong(finish_reason="stop")],
            "50.0% of the completions ended at the token",
        ),
        ([right(completion_hash=1)] * 2, "all completions are the same in the only problem with several"),
        ([right(empty=True), wrong()], "in 1 of 2 rollouts the model wrote nothing"),
        (
            [right(empty=True, reasoning_only=True), wrong()],
            "in 1 of 2 rollouts the model wrote nothing; in 1 of them it only thought",
        ),
        ([right(unanswered_calls=2), wrong(stray_results=1)], "2 tool calls have no result, 1 results answer no tool"),
        ([{}, {}], "no judged rollout has a reward"),
        ([right(), {}], "1 of 2 judged rollouts have no reward"),
    ],
)
def test_faults_are_noted(rows, note):
    notes = analyse(made_table(*rows)).notes
    assert len(notes) == 1
    assert notes[0].startswith(note)


def test_no_notes_without_faults():
    assert analyse(made_table(right(completion_hash=1), wrong(completion_hash=2))).notes == []
    assert analyse(empty_table()).notes == []
    assert analyse(made_table(wrong())).notes == [], "one verdict says nothing about the rate"


def test_quarantined_rows_are_reported_but_not_counted():
    analysis = analyse(made_table(right()), quarantined=2)
    assert (analysis.rollouts, analysis.quarantined) == (1, 2)
    assert analysis.notes == ["2 rows of the input could not be used and are in none of the numbers"]


def test_a_table_without_rows():
    analysis = analyse(empty_table(), quarantined=1)
    assert (analysis.rollouts, analysis.problems, analysis.success_rate) == (0, 0, None)
    assert "0 rollouts of 0 problems" in analysis_text(analysis, "nothing")


finite = st.floats(allow_nan=False, allow_infinity=False)
rollouts = st.fixed_dictionaries(
    {
        "instance_id": st.sampled_from(["a", "b", "模型", "<b>"]),
        "status": st.sampled_from(["ok", "failed", "unparseable"]),
        "reward": st.none() | finite | st.sampled_from([0.0, 1.0, math.nan, math.inf]),
        "success": st.none() | st.booleans(),
        "speedup": st.none() | finite,
        "tokens": st.none() | st.integers(0, 2**62),
        "completion_hash": st.none() | st.integers(0, 3),
        "exit_status": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    }
)


@settings(max_examples=20)
@given(st.lists(rollouts, max_size=40))
def test_any_table_makes_numbers_that_add_up(rows):
    analysis = analyse(made_table(*rows))
    assert analysis.judged + analysis.failed == analysis.rollouts == len(rows)
    parts = (
        analysis.problems_none_right,
        analysis.problems_some_right,
        analysis.problems_all_right,
        analysis.problems_unjudged,
    )
    assert sum(parts) == analysis.problems
    rewards = [row["reward"] for row in rows if row["reward"] is not None and math.isfinite(row["reward"])]
    assert (analysis.reward.count if analysis.reward else 0) == len(rewards)
    if histogram := analysis.reward_histogram:
        assert sum(histogram.counts) + histogram.below + histogram.above == len(rewards)
    dumped = orjson.dumps(analysis.model_dump(mode="json"), option=orjson.OPT_NON_STR_KEYS)
    assert Analysis.model_validate_json(dumped) == analysis
    assert all(math.isfinite(number) for number in _numbers(analysis.model_dump(mode="json")))
    text = analysis_text(analysis, "title")
    assert max(cell_len(line) for line in text.split("\n")) <= 100
    assert all(sign == "\n" or sign.isprintable() for sign in text)


def _numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in _numbers(part)]
    return [value] if isinstance(value, int | float) else []


def test_order_of_rows_does_not_matter():
    table = made_table(*(right(instance_id=str(n % 7), completion_hash=n % 3, reward=n / 8) for n in range(40)))
    assert analyse(table) == analyse(table.reverse())


def test_the_text_shows_the_numbers():
    table = made_table(*[wrong(exit_status="Submitted")] * 21, right(reward=0.3), wrong(reward=-0.2), failed())
    lines = analysis_text(analyse(table), "real").splitlines()
    assert lines[:2] == ["real", "24 rollouts of 1 problem"]
    assert "  success rate                       4.3%  1 of 23, 95% interval 0.8% to 21.0%" in lines
    assert f"  0                                    21   91.3%  {'█' * 40}" in lines
    assert "  Timeout                               1  100.0%  " + "█" * 40 in lines


def test_names_from_outside_stay_on_their_line():
    table = made_table({"exit_status": "\x1b[31mred\n" + "模" * 60})
    text = analysis_text(analyse(table), "a\x1b]0;b")
    assert "\x1b" not in text
    assert max(map(cell_len, text.splitlines())) <= 100


def test_rows_of_a_table_hold_the_measures():
    rows = analysis_rows(analyse(made_table(right(exit_status="Submitted"), wrong(), failed())))
    values = {row["measure"]: row["value"] for row in rows}
    assert values["rollouts"] == "3"
    assert values["success rate"].startswith("50.0% (1 of 2, ")
    assert values["problems: some right"] == "1 (100.0%)"
    assert values["exit status: Submitted"] == "1"
    assert values["error: Timeout"] == "1"
    assert len(values) == len(rows)


def test_columns_may_be_wider_than_the_schema():
    table = made_table(right()).with_columns(pl.lit(None, dtype=pl.String).alias("contaminated_by"))
    assert analyse(table).rollouts == 1
