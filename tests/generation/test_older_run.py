"""`written_by_1` is a run of rejection sampling that version 0.1 made: 4 problems with 2 rollouts each."""

import shutil
from pathlib import Path

import orjson
import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.errors import InputError
from rollmill.jobs.rejection_sampling.checkpoint import checkpoints, open_checkpoint_run
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.records import Rollout

WRITTEN = Path(__file__).parent / "written_by_1"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(WRITTEN, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def the_same(**changed):
    given = orjson.loads((WRITTEN / "run/manifest.json").read_bytes())["parameters"]
    return RejectSampling.model_validate(given | changed)


def opened(**changed):
    parameters = the_same(**changed)
    return open_checkpoint_run(parameters, checkpoints(parameters)[0])


def test_it_continues(folder):
    journal = (folder / "run/rollouts/0001.jsonl").read_bytes()
    key = orjson.loads((folder / "run/manifest.json").read_bytes())["identity_key"]
    with opened() as run:
        assert (run.missing(), run.expected) == (0, 8)
        assert run.manifest.identity_key == key
    with opened(num_rollout=3) as run:
        assert run.missing() == 4
    assert (folder / "run/rollouts/0001.jsonl").read_bytes() == journal


def test_its_rollouts_are_read(folder):
    with opened() as run:
        groups = [rollouts for _, rollouts in run.groups()]
    assert [len(rollouts) for rollouts in groups] == [2] * 4
    assert all(isinstance(one, Rollout) and one.run_identity is None for rollouts in groups for one in rollouts)


@pytest.mark.parametrize("index", [True, False])
def test_it_is_curated(folder, index):
    if not index:
        (folder / "run/rollouts/0001.index.parquet").unlink()
    corpus = read_corpus(["run"])
    assert (corpus.table.height, corpus.table["reward"].sum()) == (8, 1.0)
    assert len(list(corpus.records(corpus.table))) == 8


def test_it_is_no_other_run(folder):
    with pytest.raises(InputError, match=r"temperature \(0\.7 on disk, 0\.9 now\)"), opened(temperature=0.9):
        pass
    (folder / "run/manifest.json").unlink()
    with pytest.raises(InputError, match="line 1 does not say of which run it is"), opened(temperature=0.9):
        pass
