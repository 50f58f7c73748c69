"""`written_by_1` is a loop that version 0.1 ran, on a scripted server: the base, and one round that was kept."""

from __future__ import annotations

import json
from itertools import chain

import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.generation.finished import report_complete
from rollmill.generation.job import opened_run
from rollmill.jobs.improvement.history import History
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.improvement.rounds import (
    base_evaluations,
    begin,
    check_problems,
    choose_rows,
    judge,
    plan_round,
    write_history,
)
from rollmill.jobs.rejection_sampling.job import jobs
from rollmill.jobs.training.training import run_training
from tests.older_runs import enter_copy, read_manifest

PARAMETERS = Improve(
    model_path="base", dataset="train.jsonl", held_out="held_out.jsonl", few_shot="few_shot.jsonl", rounds=1,
    lora_r=1, target_modules=["q_proj"], num_train_epochs=1, max_tokens=16, num_rollout=8,
    answer="first", strict_numbers=True,
)  # fmt: skip
RUNS = ("base/evaluation", "base/with_examples", "round_01/rollouts", "round_01/evaluation")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    return enter_copy(__file__, tmp_path, monkeypatch) / "improved"


@pytest.fixture
def plan():
    return plan_round(PARAMETERS, begin(PARAMETERS))


def generations(plan):
    """The calls that generate, in the order of `RUNS`."""
    fed = [feed.parameters for feed in plan.to_generate]
    return [
        *base_evaluations(PARAMETERS),
        *fed,
        PARAMETERS.evaluation(f"{plan.folder}/adapter/merged", str(plan.folder)),
    ]


def test_the_problems_are_accepted():
    assert check_problems(PARAMETERS) == 12


def test_the_runs_are_complete(folder, plan):
    for name, parameters in zip(RUNS, generations(plan), strict=True):
        key, journal = read_manifest(folder / name)["identity_key"], folder / name / "rollouts/0001.jsonl"
        before = journal.read_bytes()
        with opened_run(*jobs(parameters)) as run:
            assert (run.directory, run.missing()) == (folder.relative_to(folder.parent) / name, 0)
            assert run.manifest.identity_key == key
        assert journal.read_bytes() == before


def test_reports_are_written_again(plan):
    for parameters in generations(plan):
        outcomes = report_complete(jobs(parameters))
        assert outcomes is not None
        assert all(path.exists() for path in chain.from_iterable(item.files.values() for item in outcomes))


def test_rows_are_selected_again(folder, plan):
    before = (folder / "round_01/training_data/sft.jsonl").read_bytes()
    assert choose_rows(PARAMETERS, plan).rows == 1
    assert (folder / "round_01/training_data/sft.jsonl").read_bytes() == before


def test_the_training_is_left_as_it_is(folder, plan):
    adapter = folder / "round_01/adapter"
    before = [(adapter / name).read_bytes() for name in ("manifest.json", "adapter_model.safetensors")]
    trained = run_training(plan.training)
    assert (trained.steps, trained.merged) == (1, plan.folder / "adapter/merged")
    assert [(adapter / name).read_bytes() for name in ("manifest.json", "adapter_model.safetensors")] == before


def test_the_history_is_the_same(folder, plan):
    kept = json.loads((folder / "rounds.json").read_bytes())
    history = judge(PARAMETERS, begin(PARAMETERS), plan, choose_rows(PARAMETERS, plan), run_training(plan.training))
    improved = write_history(PARAMETERS, history)
    assert history == History.model_validate(kept)
    assert json.loads(improved.files["rounds"].read_bytes()) == kept
    assert all(path.exists() for path in improved.files.values())


def test_the_run_is_curated():
    corpus = read_corpus([f"improved/{name}" for name in RUNS])
    assert (corpus.table.height, corpus.table["success"].sum()) == (12 + 12 + 32 + 12, 1 + 1 + 2 + 12)
