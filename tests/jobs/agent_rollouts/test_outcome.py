from rollmill.jobs.agent_rollouts.outcome import outcome_notes
from rollmill.jobs.curation.analysis import analyse
from rollmill.statistics.failures import FailureWords
from tests.jobs.curation.made_rollouts import made_table


def test_failures_are_noted_once_with_the_servers_message():
    analysis = analyse(made_table(*[{"status": "failed", "error_type": "http_400"}] * 3))
    assert "failed outside the model (http_400 3)" in analysis.notes[0]
    notes = outcome_notes([FailureWords("http_400", "no such field", 3)], analysis)
    assert notes[0].startswith("3 of 3 attempts failed outside the model (3 x http_400: no such field): ")
    assert notes[1:] == analysis.notes[1:]
