"""`written_by_1` is a run of rejection sampling by version 0.1: 4 problems with 2 rollouts each."""

import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.errors import InputError
from rollmill.generation.job import opened_run
from rollmill.jobs.rejection_sampling.job import jobs
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.records import Rollout
from tests.older_runs import OlderRun, enter_copy


@pytest.fixture(autouse=True)
def older(tmp_path, monkeypatch):
    return OlderRun(enter_copy(__file__, tmp_path, monkeypatch) / "run", RejectSampling, jobs)


AS_JUDGED = {"answer": "first", "strict_numbers": True}
"""The reading of version 1 of `numeric`."""


def test_it_continues_in_its_own_reading(older):
    older.check_continues(expected=8, more={"num_rollout": 3}, missing=4, same=AS_JUDGED)


def test_another_reading_needs_reverify(older):
    with pytest.raises(InputError, match=r'"numeric@1" on disk, "numeric@2" now.*--reverify scores'), older.open():
        pass
    with older.open(reverify=True) as run:
        assert run.missing() == 0


def test_its_rollouts_are_read(older):
    with older.open(**AS_JUDGED) as run:
        groups = [rollouts for _, rollouts in run.groups()]
    assert [len(rollouts) for rollouts in groups] == [2] * 4
    assert all(
        isinstance(rollout, Rollout) and rollout.run_identity is None for rollouts in groups for rollout in rollouts
    )


@pytest.mark.parametrize("index", [True, False])
def test_it_is_curated(older, index):
    if not index:
        (older.directory / "rollouts/0001.index.parquet").unlink()
    corpus = read_corpus(["run"])
    assert (corpus.table.height, corpus.table["reward"].sum()) == (8, 1.0)
    assert len(list(corpus.records(corpus.table))) == 8


def test_it_is_no_other_run(older):
    [job] = jobs(older.parameters(temperature=0.9, **AS_JUDGED))
    with pytest.raises(InputError, match=r"temperature \(0\.7 on disk, 0\.9 now\)"), opened_run(job):
        pass
    (older.directory / "manifest.json").unlink()
    with pytest.raises(InputError, match="line 1 does not say of which run it is"), opened_run(job):
        pass
