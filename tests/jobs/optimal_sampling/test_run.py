from collections import Counter

import pytest
import torch

from rollmill.errors import InputError, RunStoppedError
from rollmill.generation.manifest import read_manifest
from rollmill.jobs.optimal_sampling import sampler
from rollmill.jobs.optimal_sampling.network import Network
from rollmill.jobs.optimal_sampling.run import models_identity
from rollmill.jobs.optimal_sampling.sampler import SamplerSettings, sample_shard
from rollmill.jobs.optimal_sampling.shards import shards
from tests.inference.adapters import make_adapter
from tests.jobs.optimal_sampling.made import WORDS, make_model, make_tokenizer
from tests.jobs.optimal_sampling.runs import draw, opened, parameters, questions, read


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "base", seed=0), make_model(folder / "other", seed=1)


@pytest.fixture
def call(tmp_path, models):
    """Parameters of a call in a folder of its own."""

    def make(name="out", rows=20, **given):
        own = {"model_theta": str(models[0]), "model_t": str(models[1]), "save_diagnostics": True}
        return parameters(tmp_path, questions(rows), output=str(tmp_path / f"{name}.jsonl"), **own | given)

    return make


def written(asked):
    return asked.directory.with_suffix(".jsonl").read_bytes(), asked.diagnostics.read_bytes()


def test_samples_end_by_themselves_or_are_cut_off(call):
    outcome = draw(call(max_new_tokens=12))
    rows, told = read(outcome.output), read(outcome.diagnostics)
    assert [row["sample_idx"] for row in rows] == [row["sample_idx"] for row in told] == list(range(20))
    reasons = Counter(row["optimal_sampling"]["finish_reason"] for row in rows)
    assert set(reasons) == {"stop", "length"}
    for row, numbers in zip(rows, told, strict=True):
        assert {len(numbers[name]) for name in ("alpha", "kl_theta", "kl_t", "ess_ratio")} == {numbers["tokens"]}
        assert (numbers["tokens"] == 12) >= (row["optimal_sampling"]["finish_reason"] == "length")
        assert 0 <= numbers["kl_gap_mean"] < 1e-4


def test_the_manifest_says_on_what_samples_were_drawn(call):
    asked = call(rows=3)
    draw(asked)
    used = {"device": "cpu", "dtype": "float32", "count": 1}
    assert read_manifest(asked.directory).devices == [used]
    with opened(asked) as run:
        for process in (7, 8, 7):
            run.note_device({"device": "cuda", "dtype": "bfloat16", "count": 1, "names": ["NVIDIA H200"]}, process)
        run.finish({})
    gpus = {"device": "cuda", "dtype": "bfloat16", "names": ["NVIDIA H200"], "count": 2}
    assert read_manifest(asked.directory).devices == [used, gpus]


def test_memory_that_does_not_suffice_for_one_sample_is_one_line(call, monkeypatch):
    def no_room(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Network, "admit", no_room)
    with pytest.raises(
        InputError, match=r"^memory does not suffice for one sample of up to 6 new tokens: lower --max_new"
    ):
        draw(call(rows=3))
    assert sampler._kept is None


@pytest.mark.slow
def test_interrupted_within_a_shard_it_ends_with_the_bytes_of_one_that_was_not(call):
    whole, broken = call("whole"), call("broken")
    draw(whole)
    for most in (3, 6, 5):  # in the first shard twice, then over its end
        assert draw(broken, most) is None
    outcome = draw(broken)
    assert (outcome.made, outcome.samples) == (6, 20)
    assert written(broken) == written(whole)
    lines = (broken.directory / "rollouts/0001.jsonl").read_bytes().splitlines()
    assert len(lines) == len(set(lines)) == 20


@pytest.mark.slow
def test_parts_in_any_order_give_the_bytes_of_the_whole(call):
    whole = call("whole")
    draw(whole)
    counts = []
    for start, count in ((13, 3), (0, 5), (18, None), (3, 12)):
        parts = call("parts", start_idx=start, num_samples=count)
        counts.append((draw(parts).made, len(read(parts.output))))
    assert counts == [(3, 3), (5, 8), (2, 10), (8, 18)]
    assert [row["sample_idx"] for row in read(call("parts").output)] == [*range(16), 18, 19]
    draw(call("parts"))
    assert written(call("parts")) == written(whole)
    assert draw(call("parts")).lines()[1] == "already complete, nothing was drawn"


def test_rows_behind_the_last_that_is_wanted_are_not_drawn(call, monkeypatch):
    drawn = []
    asked = call(start_idx=2, num_samples=1, batch_size=1)
    with opened(asked) as run:
        [shard] = shards(run, asked)
        samples = sample_shard(SamplerSettings.of(asked), shard, run.directory)
        decoder = sampler._kept.decoder
        step = decoder._step
        monkeypatch.setattr(decoder, "_step", lambda *given: (drawn.append(1), step(*given))[1])
        again = sample_shard(SamplerSettings.of(asked), shard, run.directory)
    assert [row["instance_id"] for row in samples.rows] == ["row-2"]
    assert again.rows == samples.rows
    assert len(drawn) <= 3 * asked.max_new_tokens


def test_models_are_loaded_once_and_one_pair_at_a_time(call):
    def loaded(asked):
        with opened(asked) as run:
            return [
                sample_shard(SamplerSettings.of(asked), shard, run.directory).load_s is not None
                for shard in shards(run, asked)
            ]

    assert loaded(call("a", seed=3)) == [True, False, False]
    assert loaded(call("b", seed=3)) == [False] * 3
    assert loaded(call("c", seed=4)) == [True, False, False]
    assert loaded(call("d", seed=3)) == [True, False, False]


def test_a_shard_that_nobody_wants_any_more_ends(call):
    asked = call()
    with opened(asked) as run:
        shard = next(shards(run, asked))
        with pytest.raises(RunStoppedError, match="not wanted any more"):
            sample_shard(SamplerSettings.of(asked), shard, run.directory, is_given_up=lambda: True)


def test_prompts_that_do_not_fit_cost_their_rows_alone(tmp_path, models):
    small = make_model(tmp_path / "small", seed=0, kind="gpt2")
    rows = questions(6)
    rows[2]["question"] = "w3 " * 200
    asked = parameters(tmp_path, rows, model_theta=str(small), output=str(tmp_path / "o.jsonl"))
    outcome = draw(asked)
    assert (outcome.samples, outcome.failed) == (5, 1)
    assert [row["sample_idx"] for row in read(outcome.output)] == [0, 1, 3, 4, 5]
    assert any("1 rows have no sample" in note for note in outcome.notes)
    [failed] = [row for row in read(asked.directory / "rollouts/0001.jsonl") if row["error"]]
    assert (failed["instance_id"], failed["error"]["type"]) == ("row-2", "prompt")
    assert "the models take 128 with the answer" in failed["error"]["message"]
    assert draw(asked).made == 0


def test_a_hint_makes_two_of_one_model(tmp_path, models):
    hinted = parameters(
        tmp_path, questions(6), model_theta=str(models[0]), hint="w5 w6 {answer}", save_diagnostics=True
    )
    outcome = draw(hinted)
    assert not any("pi_t is pi_theta" in note for note in outcome.notes)
    assert min(row["kl_theta_mean"] for row in read(outcome.diagnostics)) > 1e-4
    assert read(outcome.output)[0]["messages"][0] == {"role": "user", "content": "w3"}
    plain = parameters(
        tmp_path, model_theta=str(models[0]), output=str(tmp_path / "plain.jsonl"), save_diagnostics=True
    )
    outcome = draw(plain)
    assert "pi_t is pi_theta, so that q* is pi_theta" in outcome.notes[0]
    assert max(row["kl_theta_mean"] for row in read(outcome.diagnostics)) < 1e-6
    assert {row["alpha_mean"] for row in read(outcome.diagnostics)} == {0.5}


def test_an_adapter_makes_two_of_one_model(tmp_path, models):
    adapter = make_adapter(tmp_path / "adapter", models[0], scale=0.5)
    outcome = draw(
        parameters(tmp_path, questions(6), model_theta=str(models[0]), adapter_t=str(adapter), save_diagnostics=True)
    )
    assert min(row["kl_theta_mean"] for row in read(outcome.diagnostics)) > 1e-6


def test_models_without_a_chat_template_get_the_text(tmp_path):
    base = make_model(tmp_path / "plain", tokenizer=make_tokenizer(WORDS, template=None))
    outcome = draw(parameters(tmp_path, questions(3), model_theta=str(base)))
    assert outcome.samples == 3


@pytest.mark.parametrize(
    ("given", "differs"),
    [
        ({"alpha_method": "entropy"}, "alpha_method"),
        ({"alpha_method": "fixed", "fixed_alpha": 0.25}, "fixed_alpha"),
        ({"alpha_tol": 1e-3}, "alpha_tol"),
        ({"model_t": None}, "model_t"),
        ({"temperature": 0.5}, "temperature"),
        ({"support_top_k": 3}, "support_top_k"),
        ({"max_new_tokens": 7}, "max_new_tokens"),
        ({"seed": 1}, "seed"),
        ({"hint": "h"}, "hint"),
        ({"dtype": "float16"}, "dtype"),
        ({"batch_size": 4}, "batch_size"),
        ({"shard_size": 9}, "shard_size"),
        ({"rows": 21}, "problems"),
    ],
)
def test_another_run_is_no_part_of_this_one(call, given, differs):
    with opened(call(rows=20)):
        pass
    with pytest.raises(InputError, match=rf"holds another run: .*\b{differs}\b"), opened(call(**{"rows": 20} | given)):
        pass


@pytest.mark.parametrize(
    "given", [{"start_idx": 4}, {"num_samples": 3}, {"save_diagnostics": False}, {"workers": 2}, {"device": "auto"}]
)
def test_what_does_not_decide_a_sample_is_no_part_of_the_run(call, given):
    with opened(call()):
        pass
    with opened(call(**given)) as run:
        assert run.expected == 20


def test_the_models_count_and_not_their_places(tmp_path, call, models):
    asked = call()
    moved = make_model(tmp_path / "moved", seed=1)
    assert models_identity(call(model_t=str(moved))) == models_identity(asked)
    make_model(tmp_path / "moved", seed=2)
    assert models_identity(call(model_t=str(moved))) != models_identity(asked)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model_theta": "/nowhere/m"}, r"--model_theta /nowhere/m: there is no such directory"),
        ({"model_t": "./nowhere"}, r"--model_t ./nowhere: there is no such directory"),
        ({"adapter_t": "nowhere"}, r"there is no adapter directory nowhere"),
        ({"dataset": "./nowhere.jsonl"}, r"nowhere.jsonl"),
        ({"start_idx": 20}, r"--start_idx 20: .* has 20 rows"),
        ({"hint": "{level}"}, r"--hint names \{level\}, which row-0 does not have: it has prompt, response, answer"),
    ],
)
def test_mistakes_are_one_line(call, given, said):
    with pytest.raises(InputError, match=said):
        draw(call(**given))
