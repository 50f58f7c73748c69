import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.generation.verification import REASONING_ONLY
from rollmill.jobs.rejection_sampling.advice import advice
from rollmill.jobs.rejection_sampling.coverage import CoverageError
from rollmill.jobs.rejection_sampling.report import format_statistics
from rollmill.jobs.rejection_sampling.results import write_results
from rollmill.records import Problem
from tests.jobs.rejection_sampling.rollout_rows import group, rollout


def write(path, groups, num_rollout, **changes):
    groups = list(groups)
    options = {
        "metadata": {"model": "m"},
        "problems": len(groups),
        "num_rollout": num_rollout,
        "accept_error": 0.1,
        "numeric": True,
    }
    return write_results(path, groups, **{**options, **changes})


def strictly(text):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


GROUPS = [
    group(0, [0.5, 0.0, "unparseable", 0.0], truth="1"),
    group(1, ["failed:timeout", "missing", 0.05, 2.0], truth="2"),
    group(2, ["failed:http_400", "failed:timeout", "missing", "missing"], truth="3"),
    group(3, ["unparseable"] * 4, truth="4"),
]


def test_rows_have_the_expected_values(tmp_path):
    write(tmp_path / "r.json", GROUPS, 4)
    result = strictly((tmp_path / "r.json").read_text())
    assert result["metadata"] == {"model": "m"}
    assert [row["index"] for row in result["results"]] == [0, 1, 2, 3]
    assert result["results"][0] == {
        "index": 0,
        "instance_id": "p0",
        "ground_truth": 1.0,
        "min_error": 0.0,
        "best_sample_id": 1,
        "best_completion": "completion 1",
        "best_answer": "0.0",
        "mean_error": pytest.approx(0.5 / 3),
        "median_error": 0.0,
        "errors": [0.5, 0.0, None, 0.0],
        "counts": {"ok": 3, "unparseable": 1, "failed": 0, "missing": 0},
        "accepted": 2,
        "truncated": 0,
    }
    assert result["results"][1]["errors"] == [None, None, 0.05, 2.0]
    assert result["results"][1]["counts"] == {"ok": 2, "unparseable": 0, "failed": 1, "missing": 1}
    nothing = result["results"][2]
    assert [nothing[key] for key in ("min_error", "mean_error", "median_error", "best_completion")] == [None] * 4


def test_the_summary_is_the_statistics(tmp_path):
    result = write(tmp_path / "r.json", GROUPS, 4).statistics
    assert strictly((tmp_path / "r.json").read_text())["summary"] == json.loads(result.model_dump_json())


def test_shares_by_hand(tmp_path):
    result = write(tmp_path / "r.json", GROUPS, 4).statistics
    assert result.coverage.model_dump() == {"expected": 16, "ok": 5, "unparseable": 5, "failed": 3, "missing": 3}
    assert result.failed_kinds == {"timeout": 2, "http_400": 1}
    assert (result.problems, result.judged_problems, result.accepted) == (4, 3, 3)
    assert (result.share_exact, result.share_solved) == (1 / 3, 2 / 3)
    assert (result.accepted_of_ok, result.accepted_of_judged, result.parse_rate) == (3 / 5, 3 / 10, 0.5)
    assert (result.truncation_rate, result.truncated) == (0.0, 0)


def test_errors_by_hand(tmp_path):
    actual = write(tmp_path / "r.json", GROUPS, 4)
    result = actual.statistics
    assert (result.least_error.count, result.least_error.mean) == (2, 0.025)
    assert result.error.mean == pytest.approx(2.55 / 5)
    assert list(actual.least_errors) == [0.0, 0.05]
    assert len(actual.errors) == 5


def test_pass_at_k_by_hand(tmp_path):
    result = write(tmp_path / "r.json", GROUPS, 4).statistics
    # a failed rollout counts neither way: n is 4, 2 and 4, and one problem has none
    assert result.pass_at_k[0].value == pytest.approx((2 / 4 + 1 / 2 + 0) / 3)
    assert [(rung.k, rung.problems, rung.left_out) for rung in result.pass_at_k] == [(1, 3, 1), (2, 3, 1), (4, 2, 2)]


def test_the_random_baseline_by_hand(tmp_path):
    result = write(tmp_path / "r.json", GROUPS, 4).statistics
    # guesses from {1, 2, 3, 4}: truth 1 in 4 tries, truth 2 in 2 tries
    first = (3 / 4) ** 4 + (2 / 4) ** 4 + (1 / 4) ** 4
    second = (3 / 4) ** 2 + (1 / 4) ** 2
    assert result.guess_baseline.mean_least_error == pytest.approx((first + second) / 2)
    assert result.guess_baseline.model_mean_least_error == 0.025


def test_truncated_and_errors_that_are_no_numbers(tmp_path):
    rollouts = [
        rollout(0, None, success=True, finish_reason="length"),
        rollout(1, None, success=False),
        rollout(2, "unparseable", finish_reason="length"),
        rollout(3, "failed:verifier_raised"),
    ]
    groups = [(Problem(instance_id="p0", prompt="q", answer="007"), rollouts)]
    result = write(tmp_path / "r.json", groups, 4, numeric=False, accept_error=None).statistics
    row = strictly((tmp_path / "r.json").read_text())["results"][0]
    assert (row["ground_truth"], row["min_error"], row["best_sample_id"], row["truncated"]) == ("007", None, 0, 2)
    assert (result.least_error, result.error, result.truncation_rate) == (None, None, 2 / 3)
    assert result.accepted == 1
    assert result.guess_baseline.mean_least_error is None
    assert "not compared as numbers" in result.guess_baseline.reason
    assert "pass@1 is what one answer is worth" in format_statistics(result, title="t")


@pytest.mark.parametrize("count", [1, 3])
def test_lost_problems_are_a_bug_and_write_nothing(tmp_path, count):
    with pytest.raises(CoverageError, match="do not add up"):
        write(tmp_path / "r.json", GROUPS[:2], 4, problems=count)
    assert list(tmp_path.iterdir()) == []


def test_a_rollout_at_another_samples_index_is_a_bug(tmp_path):
    problem, rollouts = group(0, [0.0, 0.0])
    with pytest.raises(CoverageError, match="rollout 1 of p0 stands where"):
        write(tmp_path / "r.json", [(problem, rollouts[::-1])], 2)
    assert list(tmp_path.iterdir()) == []


states = st.one_of(
    st.sampled_from(["unparseable", "failed:timeout", "missing", None]),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False),
)
truths = st.one_of(st.none(), st.sampled_from(["3", "nan", "inf", "x", "1e308", "-1e308"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.tuples(st.lists(states, min_size=n, max_size=n), truths))))
@pytest.mark.filterwarnings("ignore:overflow")
def test_any_rollouts_give_valid_json_and_text(tmp_path, built):
    groups = [group(index, result, truth=truth) for index, (result, truth) in enumerate(built)]
    num_rollout = len(built[0][0]) if built else 3
    result = write(tmp_path / "r.json", groups, num_rollout).statistics
    content = strictly((tmp_path / "r.json").read_text())
    assert len(content["results"]) == len(built)
    coverage = content["summary"]["coverage"]
    assert coverage["expected"] == sum(coverage[key] for key in ("ok", "unparseable", "failed", "missing"))
    text = format_statistics(result, title="t")
    assert "nan" not in text
    assert "inf" not in text


MEASURE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rollmill.jobs.rejection_sampling.results import write_results
from tests.jobs.rejection_sampling.rollout_rows import group

def groups(problems):
    for index in range(problems):
        problem, rollouts = group(index, [((index + i) % 7) / 20 for i in range(16)], truth=str(index % 100))
        for rollout in rollouts:
            rollout.completion = str(rollout.sample_id) * 2000
        yield problem, rollouts

def run(problems):
    options = {"metadata": {}, "problems": problems, "num_rollout": 16, "accept_error": 0.1, "numeric": True}
    write_results(Path(sys.argv[2]), groups(problems), **options)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

small = run(63)
print((run(6250) - small) // 1024)
"""


@pytest.mark.slow
def test_memory_of_a_hundred_thousand_rollouts(request, tmp_path):
    argv = [sys.executable, "-c", MEASURE, request.config.rootpath, tmp_path / "r.json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 25, "megabytes more for 100,000 rollouts than for 1,000"
    assert len(strictly((tmp_path / "r.json").read_text())["results"]) == 6250


def test_thoughts_are_counted_and_the_best_ones_shown(tmp_path):
    problem, rollouts = group(0, [0.5, 0.0, "unparseable", "unparseable"])
    rollouts[1].reasoning_content = "hm"
    alone = rollouts[2].verdict.model_copy(update={"reason": REASONING_ONLY})
    rollouts[2] = rollouts[2].model_copy(update={"verdict": alone, "completion": "", "reasoning_content": "so"})
    statistics = write(tmp_path / "r.json", [(problem, rollouts)], 4).statistics
    [row] = strictly((tmp_path / "r.json").read_text())["results"]
    assert row["best_reasoning_content"] == "hm"
    assert (statistics.reasoning_only, statistics.coverage.unparseable) == (1, 2)
    assert "thoughts alone" in format_statistics(statistics, title="t")
    assert any("reasoning_only" in text for text in advice(statistics, temperature=1.0))
