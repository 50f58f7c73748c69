"""`written_by_1` is a run that version 0.1 made."""

from __future__ import annotations

import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.jobs.agent_rollouts.job import jobs
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from tests.older_runs import OlderRun, enter_copy


@pytest.fixture(autouse=True)
def older(tmp_path, monkeypatch):
    return OlderRun(enter_copy(__file__, tmp_path, monkeypatch) / "attempts", AgentRollouts, jobs)


def test_the_run_continues(older):
    older.check_continues(expected=2, more={"samples_per_task": 3}, missing=1)


def test_the_run_is_read_and_its_results_are_written_again(older):
    corpus = read_corpus(["attempts"])
    assert (corpus.table.height, corpus.table["success"].sum()) == (2, 1)
    outcome = older.report()
    assert (outcome.made, outcome.attempts, outcome.successful, outcome.failed) == (0, 2, 1, 0)
    assert all(path.exists() for path in outcome.files.values())
    assert outcome.health[0] == "health: nothing wrong in 2 rollouts"
