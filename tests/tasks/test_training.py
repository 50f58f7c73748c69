"""What is looked at before a training begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rollmill.errors import InputError
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from tasks.training import check_server


@pytest.fixture(autouse=True)
def _no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLMILL_VLLM_PYTHON", "/nowhere/python")


def asked(folder: Path, **given: Any) -> TrainAndEvaluate:
    own = {"model_path": "org/m", "train_data": "t.jsonl", "output_dir": str(folder / "out"), "held_out": "h.jsonl"}
    return TrainAndEvaluate.model_validate({**own, "verifier": "exact", **given})


def test_a_server_that_cannot_start_is_said_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'/nowhere/python' is not there"):
        check_server(asked(tmp_path))


@pytest.mark.parametrize("given", [{"held_out": None}, {"cluster_block": "gpus"}])
def test_a_server_that_does_not_start_here_is_not_looked_at(tmp_path: Path, given: dict[str, Any]) -> None:
    check_server(asked(tmp_path, **given))
