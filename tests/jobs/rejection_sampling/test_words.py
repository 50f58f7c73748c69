import pytest

from rollmill.jobs.rejection_sampling.advice import advice
from rollmill.jobs.rejection_sampling.comparison import compare, comparison_cells, format_comparison
from rollmill.jobs.rejection_sampling.report import format_statistics
from rollmill.jobs.rejection_sampling.statistics import make_statistics
from rollmill.jobs.rejection_sampling.summary import summarise
from rollmill.jobs.rejection_sampling.tally import ProblemTally
from tests.jobs.rejection_sampling.rollout_rows import group


def statistics(*groups, num_rollout=4, truncate=0):
    tally = ProblemTally(num_rollout)
    for index, (problem, rollouts) in enumerate(groups):
        for rollout in rollouts[:truncate]:
            rollout.finish_reason = "length"
        tally.add(summarise(index, problem, rollouts, numeric=True))
    return make_statistics(tally, expected=len(groups) * num_rollout, num_rollout=num_rollout, accept_error=0.1)


GOOD = statistics(group(0, [0.0, 0.05, 1.0, 3.0], truth="1"), group(1, [0.1, 0.2, 0.0, 0.3], truth="50"))


def test_a_good_run_has_no_warnings():
    assert advice(GOOD, temperature=1.0) == []


@pytest.mark.parametrize(
    ("run", "temperature", "words"),
    [
        (GOOD, 0.0, "temperature 0"),
        (statistics(group(0, ["unparseable"] * 3 + [0.0], truth="1")), 1.0, "--few_shot"),
        (statistics(group(0, [5.0] * 4, truth="1"), group(1, [5.0] * 4, truth="1000")), 1.0, "none of 8 answers"),
        (statistics(group(0, [0.0, 0.1, 0.2, 0.0]), truncate=1), 1.0, "raise --max_tokens, then --retry truncated"),
        (statistics(group(0, [0.0, 0.0, "failed:timeout", 0.0])), 1.0, "(timeout 1)"),
        (statistics(group(0, [0.05] * 4)), 1.0, "no better than guessing"),
    ],
)
def test_each_problem_has_a_warning(run, temperature, words):
    assert any(words in text for text in advice(run, temperature=temperature))


def test_one_sample_at_temperature_zero_is_fine():
    assert not any("temperature" in t for t in advice(statistics(group(0, [0.0]), num_rollout=1), temperature=0))


def test_report():
    text = format_statistics(GOOD, title="Run m", warnings=["look out"])
    assert "coverage                          expected 8 = ok 8 + unparseable 0 + failed 0 + missing 0\n" in text
    assert "The least of 4 overstates the model" in text
    assert text.endswith("WARNING: look out\n")
    assert all(len(line) < 130 for line in text.splitlines())


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        (["unparseable"] * 4, "No rollout has an answer that can be judged"),
        (["failed:x"] * 4, "No rollout has an answer: those attempted failed outside the model"),
        (["missing"] * 4, "No rollout was attempted yet"),
    ],
)
def test_report_where_nothing_is_ok(states, sentence):
    text = format_statistics(statistics(group(0, states)), title="t")
    assert sentence in text
    assert "nan" not in text
    assert "hides" not in text


def test_comparison():
    nothing = statistics(group(0, ["missing"] * 4))
    first, second = compare([("a", GOOD), ("long name", nothing)])
    assert (first.rollouts, first.parse_rate, first.accepted, first.mean_least_error) == (8, 1.0, 0.5, 0.0)
    assert (first.pass_at_1, first.pass_at_n) == (0.5, 1.0)
    assert (second.rollouts, second.mean_error, second.pass_at_1, second.guess_baseline) == (0, None, None, None)
    assert comparison_cells([second])[0]["pass@N"] == "-"
    lines = format_comparison([first, second]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert format_comparison([]).startswith("model")
