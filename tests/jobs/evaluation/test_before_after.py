from pathlib import Path

import pytest
from pydantic import ValidationError

from rollmill.jobs.evaluation import before_after, train_and_evaluate
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from rollmill.jobs.training.manifest import Trained


def make_parameters(**more):
    return TrainAndEvaluate(model_path="base", train_data="sft.jsonl", output_dir="out", **more)


def trained(*, adapter=None, merged=None):
    return Trained(
        directory=Path("out"), adapter=adapter, merged=merged, steps=1, best_step=1, epochs=1, train_loss=1,
        eval_loss=None, tokens=1, seconds=1, rows=1, validation_rows=0, dropped={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("serve", "accelerator", "more", "adapter"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"lora_r": 512}, True),
        ("auto", True, {"lora_r": 513}, False),
        ("adapter", False, {}, True),
        ("merged", True, {}, False),
    ],
)
def test_adapter_or_merged_model_is_served(monkeypatch, serve, accelerator, more, adapter):
    monkeypatch.setattr(train_and_evaluate, "has_accelerator", lambda: accelerator)
    parameters = make_parameters(serve=serve, held_out="test.jsonl", **more)
    assert parameters.training().merge is not adapter
    assert not make_parameters(serve=serve, **more).training().merge
    assert make_parameters(serve=serve, held_out="test.jsonl", merge=True, **more).training().merge
    after = parameters.after(trained(adapter=Path("out"), merged=None if adapter else Path("out/merged")))
    assert (after.model_path, after.adapter) == ((["base"], ["out"]) if adapter else (["out/merged"], []))
    assert (after.model_name, after.output_dir) == (["evaluation"], "out/after")
    before = parameters.before()
    assert (before.model_path, before.adapter, before.output_dir) == (["base"], [], "out/before")


def test_evaluations_run_where_the_user_says():
    assert make_parameters(held_out="test.jsonl", cluster_block="gpus").before().cluster_block == "gpus"
    assert (
        make_parameters(held_out="test.jsonl", gpu_workers=4).after(trained(merged=Path("out/merged"))).gpu_workers == 4
    )
    assert make_parameters(held_out="test.jsonl").before().gpu_workers is None


@pytest.mark.parametrize("accelerator", [True, False])
def test_a_fully_trained_model_is_served_as_it_is(monkeypatch, accelerator):
    monkeypatch.setattr(train_and_evaluate, "has_accelerator", lambda: accelerator)
    parameters = make_parameters(use_lora=False, held_out="test.jsonl")
    assert not parameters.training().merge
    after = parameters.after(trained())
    assert (after.model_path, after.adapter) == (["out"], [])


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"serve": "adapter", "use_lora": False}, "--serve: without --use_lora there is no adapter"),
        ({"serve": "merged", "use_lora": False}, "--serve: without --use_lora there is no adapter"),
        ({"serve": "adapter", "lora_r": 513}, "vLLM serves ranks up to 512: lower --lora_r, or --serve merged"),
        ({"cluster_block": "gpus", "gpu_workers": 2}, "give --cluster_block or --gpu_workers, not both"),
        ({"serve": "both"}, "'auto', 'adapter' or 'merged'"),
    ],
)
def test_mistakes_are_refused(mistake, words):
    with pytest.raises(ValidationError, match=words):
        make_parameters(**mistake)


def test_comparison_names_its_files():
    result = before_after.BeforeAfter(*3 * [None], picture=Path("out/evaluation.png"))
    assert result.directory == Path("out")
    assert sorted(map(str, result.files.values())) == [
        "out/after", "out/before", "out/evaluation.json", "out/evaluation.png",
    ]  # fmt: skip
