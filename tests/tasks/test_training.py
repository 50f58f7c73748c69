"""Checks before a training starts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from rollmill.errors import InputError
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from tasks.training import check_evaluation, check_server, check_training
from tests.gpus import FakeMachine


@pytest.fixture(autouse=True)
def _no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLMILL_VLLM_PYTHON", "/nowhere/python")


def make_parameters(folder: Path, **fields: Any) -> TrainAndEvaluate:
    defaults = {
        "model_path": "org/m",
        "train_data": "t.jsonl",
        "output_dir": str(folder / "out"),
        "held_out": "h.jsonl",
    }
    return TrainAndEvaluate.model_validate({**defaults, "verifier": "exact", **fields})


def test_unstartable_server_is_reported_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'/nowhere/python' does not exist"):
        check_server(make_parameters(tmp_path))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"held_out": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"verifier": "no.such:verifier"}, "no.such"),
        ({"prompt_template": "without a question"}, "no {prompt} in it"),
    ],
)
def test_invalid_evaluation_is_refused_before_the_training(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    (tmp_path / "h.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    with pytest.raises(InputError, match=words):
        check_evaluation(make_parameters(tmp_path, **{"held_out": str(tmp_path / "h.jsonl"), **fields}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_gpus": 3}, "--num_gpus 3: there are 2 GPUs here: give at most 2"),
        ({"gpu_workers": 3}, "--gpu_workers 3: there are 2 GPUs here: give at most 2"),
        ({"vllm_args": "-tp 4"}, "--vllm_args: --tensor-parallel-size 4 takes 4 GPUs, and there are 2 GPUs here"),
    ],
)
def test_too_few_gpus_are_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], words: str
) -> None:
    FakeMachine(tmp_path / "machine", monkeypatch).show_gpus(2)
    (tmp_path / "h.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    with pytest.raises(InputError, match=words):
        check_evaluation(make_parameters(tmp_path, held_out=str(tmp_path / "h.jsonl"), **fields))


def test_finished_training_needs_no_gpus(tmp_path: Path) -> None:
    parameters = make_parameters(tmp_path, num_gpus=2).training()
    with pytest.raises(InputError, match="--num_gpus 2: there are 0 GPUs here"):
        check_training(parameters)
    finished = Path(__file__).parents[1] / "jobs/training/written_by_1/finished"
    assert check_training(parameters.model_copy(update={"output_dir": str(finished)})) == ()
    assert check_training(parameters, "gpus") == ()  # a worker of the cluster checks it
    assert check_training(None) == ()


def test_refused_check_leaves_only_the_quarantine_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError):
        check_evaluation(make_parameters(tmp_path, held_out="nowhere.jsonl"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "h.jsonl").write_text('{"question": "", "answer": "2"}\n')
    with pytest.raises(InputError) as refused:
        check_evaluation(make_parameters(tmp_path, held_out=str(tmp_path / "h.jsonl")))
    [rows] = tmp_path.glob("rollmill-problems-*/quarantine.jsonl")
    assert str(rows) in str(refused.value)


def test_check_does_not_create_the_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.training.check_server", lambda parameters: None)
    (tmp_path / "h.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    check_evaluation(make_parameters(tmp_path, held_out=str(tmp_path / "h.jsonl")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fields", [{"held_out": None}, {"cluster_block": "gpus"}])
def test_server_that_starts_elsewhere_is_not_checked(tmp_path: Path, fields: dict[str, Any]) -> None:
    check_server(make_parameters(tmp_path, **fields))
