"""`written_by_1` is a run that version 0.1 made."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.jobs.agent_rollouts.finished import finished_outcome
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.agent_rollouts.run import open_agent_run

WRITTEN = Path(__file__).parent / "written_by_1"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    shutil.copytree(WRITTEN, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def the_same(**changed):
    given = orjson.loads((WRITTEN / "attempts/manifest.json").read_bytes())["parameters"]
    return AgentRollouts.model_validate(given | changed)


def test_it_continues(folder):
    journal = (folder / "attempts/rollouts/0001.jsonl").read_bytes()
    key = orjson.loads((folder / "attempts/manifest.json").read_bytes())["identity_key"]
    with open_agent_run(the_same()) as run:
        assert (run.missing(), run.expected) == (0, 2)
        assert run.manifest.identity_key == key
    with open_agent_run(the_same(samples_per_task=3)) as run:
        assert run.missing() == 1
    assert (folder / "attempts/rollouts/0001.jsonl").read_bytes() == journal


def test_it_is_read_and_its_results_are_written_anew():
    corpus = read_corpus(["attempts"])
    assert (corpus.table.height, corpus.table["success"].sum()) == (2, 1)
    outcome = finished_outcome(the_same())
    assert outcome is not None
    assert outcome.made == 0
