from rollmill.generation.tally import RolloutOutcome, Tally
from tests.generation.run_factory import rollout


def outcome(**fields):
    return RolloutOutcome.of_row(rollout(**fields).model_dump(mode="json"))


def test_counting():
    tally = Tally()
    for each in (
        outcome(error=0.0),
        outcome(error=2.0, finish_reason="length"),
        outcome(state="unparseable"),
        outcome(state="failed:timeout"),
        outcome(state="failed:http_400"),
    ):
        tally.add(each)
    assert tally.counts() == (5, 2, 1, 2)
    assert tally.success == 1
    assert (tally.error_sum, tally.errors_counted) == (2.0, 2)
    assert tally.completion_tokens == 25


def test_an_outcome():
    counted = outcome(state="failed:timeout", attempt=2, max_tokens=7)
    assert counted.failed
    assert (counted.error_type, counted.success, counted.error, counted.latency_s) == ("timeout", False, None, 0.0)
    assert (counted.attempt, counted.max_tokens, counted.completed) == (2, 7, False)
    assert not outcome(state="unparseable").failed
    assert outcome(metadata={}).attempt == 0
