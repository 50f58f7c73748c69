"""`written_by_1` has two runs that version 0.1 made of the same parameters: one finished, one stopped after 5 steps."""

from __future__ import annotations

import orjson
import pytest
import torch
from safetensors.torch import load_file

from rollmill.errors import InputError
from rollmill.jobs.training.base_check import check_adapter
from rollmill.jobs.training.metrics import METRICS, read_metrics
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.training import run_training
from tests.older_runs import enter_copy, read_manifest

CHECKPOINT = 4
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    return enter_copy(__file__, tmp_path, monkeypatch)


def parameters(folder, name, **changed):
    return TrainLora.model_validate(read_manifest(folder / name)["parameters"] | changed)


def files_of(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_finished_run_is_left_as_it_is(folder):
    before, manifest = files_of(folder / "finished"), read_manifest(folder / "finished")
    trained = run_training(parameters(folder, "finished"))
    assert (trained.steps, trained.best_step, trained.rows) == (12, 12, 8)
    assert trained.train_loss == manifest["result"]["train_loss"]
    assert files_of(folder / "finished") == before


def test_a_finished_run_is_not_replaced_by_another(folder):
    with pytest.raises(InputError, match=r"holds another run: lora_r \(1 on disk, 2 now\)"):
        run_training(parameters(folder, "finished", lora_r=2))


def test_a_stopped_run_without_its_prepared_rows_is_refused(folder):
    (folder / "interrupted" / ".work" / "rows.json").unlink()
    with pytest.raises(InputError, match="was begun by an older version, and the rows that it prepared are missing"):
        run_training(parameters(folder, "interrupted"))


def test_the_adapter_fits_its_base(folder):
    check_adapter(folder / "finished", str(folder / "base"))


@pytest.mark.slow
def test_a_stopped_run_continues_from_its_checkpoint(folder):
    finished, stopped = folder / "finished", folder / "interrupted"
    key, lines = read_manifest(stopped)["identity_key"], metrics_lines(stopped)
    kept = [line for line in lines if orjson.loads(line)["step"] <= CHECKPOINT]
    trained = run_training(parameters(folder, "interrupted"))
    assert (trained.steps, trained.dropped) == (12, {"unusable": 1})
    assert read_manifest(stopped)["identity_key"] == key == read_manifest(finished)["identity_key"]
    assert metrics_lines(stopped)[: len(kept)] == kept
    torch.testing.assert_close(losses(stopped), losses(finished))
    torch.testing.assert_close(load_file(stopped / WEIGHTS), load_file(finished / WEIGHTS))


def metrics_lines(directory):
    return (directory / METRICS).read_bytes().splitlines()


def losses(directory):
    return [item.loss or item.eval_loss for item in read_metrics(directory / METRICS)]
