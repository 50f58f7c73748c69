"""`written_by_1` is a run that version 0.1 made: 10 samples with their diagnostics, and both models."""

from __future__ import annotations

import json

import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.job import jobs
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from tests.jobs.optimal_sampling.runs import draw, opened
from tests.older_runs import OlderRun, enter_copy, read_manifest

ROWS = 10
RESULTS = ("out.jsonl", "out.diagnostics.jsonl")


@pytest.fixture(autouse=True)
def older(tmp_path, monkeypatch):
    return OlderRun(enter_copy(__file__, tmp_path, monkeypatch) / "out", OptimalSampling, jobs)


def read_results(older):
    return [(older.directory.parent / name).read_bytes() for name in RESULTS]


def answers(samples):
    return [json.loads(line)["messages"][-1]["content"] for line in samples.splitlines()]


def test_the_run_is_complete(older):
    journal, key = older.journal(), read_manifest(older.directory)["identity_key"]
    with opened(older.parameters()) as run:
        assert (run.missing(), run.expected) == (0, ROWS)
        assert run.manifest.identity_key == key
    assert older.journal() == journal


def without_cut_off(content):
    """A file of results less what earlier versions did not say: which samples were cut off."""
    return content.replace(b',"metadata":{"truncated":true}', b"")


def test_results_are_written_again(older):
    results = [without_cut_off(content) for content in read_results(older)]
    for name in RESULTS:
        (older.directory.parent / name).unlink()
    outcome = older.report()
    assert (outcome.samples, outcome.made) == (ROWS, 0)
    written = read_results(older)
    assert b'"metadata":{"truncated":true}' in written[0]
    assert [without_cut_off(content) for content in written] == results
    assert all(path.exists() for path in outcome.files.values())


def test_the_run_is_curated():
    corpus = read_corpus(["out"])
    assert corpus.table.height == ROWS
    assert len(list(corpus.records(corpus.table))) == ROWS


def test_the_interrupted_run_draws_the_same_samples(older):
    samples, _ = read_results(older)
    lines = older.journal().splitlines(keepends=True)
    (older.directory / "rollouts/0001.jsonl").write_bytes(b"".join(lines[:6]))
    outcome = draw(older.parameters())
    assert outcome.made == ROWS - 6
    assert older.journal().splitlines(keepends=True)[:6] == lines[:6]
    assert answers(read_results(older)[0]) == answers(samples)


def test_another_model_is_another_run(older):
    other = older.parameters(model_t="base")
    with pytest.raises(InputError, match=r"model_t \(.* on disk, .* now\)"), opened(other):
        pass
