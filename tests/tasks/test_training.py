"""Checks before a training starts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from rollmill.errors import InputError
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from tasks.training import check_evaluation, check_server


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
