"""`written_by_1` is a run that version 0.1 made."""

from __future__ import annotations

import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.jobs.episodes.job import jobs
from rollmill.jobs.episodes.parameters import CollectEpisodes
from tests.older_runs import OlderRun, enter_copy


@pytest.fixture(autouse=True)
def older(tmp_path, monkeypatch):
    return OlderRun(enter_copy(__file__, tmp_path, monkeypatch) / "run", CollectEpisodes, jobs)


def test_the_run_continues(older):
    older.check_continues(expected=3, more={"num_episodes": 5}, missing=2)


def test_the_run_is_read_and_its_results_are_written_again(older):
    corpus = read_corpus(["run"])
    assert (corpus.table.height, corpus.table["success"].sum()) == (3, 3)
    outcome = older.report()
    assert (outcome.made, outcome.episodes, outcome.successes, outcome.failed) == (0, 3, 3, 0)
    assert outcome.rows == len(outcome.data.read_text().splitlines()) > 0
    assert all(path.exists() for path in outcome.files.values())
