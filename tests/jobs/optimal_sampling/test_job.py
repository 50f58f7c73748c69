from collections import Counter
from contextlib import closing

import pytest
import torch

from rollmill.errors import InputError
from rollmill.generation.manifest import read_manifest
from rollmill.generation.token_file import TokenReader
from rollmill.jobs.optimal_sampling import sampler
from rollmill.jobs.optimal_sampling.job import models_identity
from rollmill.jobs.optimal_sampling.network import Network
from rollmill.records import Rollout
from tests.inference.adapters import make_adapter
from tests.jobs.optimal_sampling.runs import draw, opened, parameters, questions, read, sample, shards_of
from tests.jobs.optimal_sampling.tiny_pairs import WORDS, make_model, make_tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "base", seed=0), make_model(folder / "other", seed=1)


@pytest.fixture
def call(tmp_path, models):
    """Parameters of a call in a folder of its own."""

    def make(name="out", rows=20, **options):
        custom = {"model_theta": str(models[0]), "model_t": str(models[1]), "save_diagnostics": True}
        return parameters(tmp_path, questions(rows), output=str(tmp_path / f"{name}.jsonl"), **custom | options)

    return make


def written(requested):
    """The samples, but for the name of the run in which they find their tokens, and the diagnostics."""
    samples = requested.directory.with_suffix(".jsonl").read_bytes()
    return samples.replace(f'"{requested.directory.name}/'.encode(), b'"run/'), requested.diagnostics.read_bytes()


def test_log_probabilities_are_recorded_with_the_ids(call):
    requested = call(rows=3)
    draw(requested)
    with opened(requested) as run:
        rollouts = [Rollout.model_validate(row) for row in read(run.journal.path)]
        with closing(TokenReader(run.journal.path.parent)) as reader:
            calls = [reader.read(rollout.tokens, rollout.instance_id, 0).calls[0] for rollout in rollouts]
    assert [len(call.logprobs) for call in calls] == [rollout.usage.completion_tokens for rollout in rollouts]
    assert {call.source.logprobs_mode for call in calls} == {"processed_logprobs"}
    assert all(max(call.logprobs) <= 0 for call in calls)


def test_samples_end_by_themselves_or_are_cut_off(call):
    outcome = draw(call(max_new_tokens=12))
    rows, messages = read(outcome.output), read(outcome.diagnostics)
    assert [row["sample_idx"] for row in rows] == [row["sample_idx"] for row in messages] == list(range(20))
    reasons = Counter(row["optimal_sampling"]["finish_reason"] for row in rows)
    assert set(reasons) == {"stop", "length"}
    for row, numbers in zip(rows, messages, strict=True):
        assert {len(numbers[name]) for name in ("alpha", "kl_theta", "kl_t", "ess_ratio")} == {numbers["tokens"]}
        assert (numbers["tokens"] == 12) >= (row["optimal_sampling"]["finish_reason"] == "length")
        assert 0 <= numbers["kl_gap_mean"] < 1e-4


@pytest.mark.parametrize(("backend", "dtype", "is_said"), [("vllm", "bfloat16", True), ("vllm", "float32", False),
                                                            ("transformers", "bfloat16", False)])  # fmt: skip
def test_vllm_in_16_bits_is_noted_to_depend_on_the_batch(call, backend, dtype, is_said):
    requested = call(rows=3, backend=backend, dtype=dtype, **({"device": "auto"} if backend == "vllm" else {}))
    with opened(requested) as run:
        assert ("in any batch" in " ".join(run.manifest.notes)) == is_said


def test_the_manifest_has_the_device(call):
    requested = call(rows=3)
    draw(requested)
    used = {"device": "cpu", "dtype": "float32", "count": 1}
    assert read_manifest(requested.directory).devices == [used]
    with opened(requested) as run:
        for worker in ("a:7", "a:8", "a:7"):
            run.note_device({"device": "cuda", "dtype": "bfloat16", "count": 1, "names": ["NVIDIA H200"]}, worker)
        run.finish({})
    gpus = {"device": "cuda", "dtype": "bfloat16", "names": ["NVIDIA H200"], "count": 2}
    assert read_manifest(requested.directory).devices == [used, gpus]


def test_too_little_memory_for_one_sample_is_reported_in_one_line(call, monkeypatch):
    def no_room(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Network, "admit", no_room)
    with pytest.raises(
        InputError, match=r"^memory does not suffice for one sample of up to 6 new tokens: lower --max_tok"
    ):
        draw(call(rows=3))
    assert sampler._loaded is None


@pytest.mark.slow
def test_run_interrupted_within_a_shard_ends_with_equal_bytes(call):
    total, broken = call("whole"), call("broken")
    draw(total)
    for most in (3, 6, 5):  # in the first shard twice, then over its end
        assert draw(broken, most) is None
    outcome = draw(broken)
    assert (outcome.made, outcome.samples) == (6, 20)
    assert written(broken) == written(total)
    lines = (broken.directory / "rollouts/0001.jsonl").read_bytes().splitlines()
    assert len(lines) == len(set(lines)) == 20


@pytest.mark.slow
def test_calls_for_parts_in_any_order_give_equal_bytes(call):
    total = call("whole")
    draw(total)
    counts = []
    for start, count in ((13, 3), (0, 5), (18, None), (3, 12)):
        parts = call("parts", start_idx=start, num_samples=count)
        counts.append((draw(parts).made, len(read(parts.output))))
    assert counts == [(3, 3), (5, 8), (2, 10), (8, 18)]
    assert [row["sample_idx"] for row in read(call("parts").output)] == [*range(16), 18, 19]
    draw(call("parts"))
    assert written(call("parts")) == written(total)
    assert draw(call("parts")).lines()[1] == "already complete, nothing was generated"


def test_rows_behind_the_last_pending_one_are_not_sampled(call, monkeypatch):
    drawn = []
    requested = call(start_idx=2, num_samples=1, batch_size=1)
    with opened(requested) as run:
        [shard] = shards_of(requested, run)
        samples = sample(requested, shard)
        decoder = sampler._loaded.decoder
        step = decoder._step
        monkeypatch.setattr(decoder, "_step", lambda *options: (drawn.append(1), step(*options))[1])
        again = sample(requested, shard)
    assert [rollout.instance_id for rollout in samples.completed] == ["row-2"]
    assert again.completed == samples.completed
    assert len(drawn) <= 3 * requested.max_tokens


def test_models_are_loaded_once_and_one_pair_at_a_time(call):
    def loaded(requested):
        with opened(requested) as run:
            return [sample(requested, shard).ready_s is not None for shard in shards_of(requested, run)]

    assert loaded(call("a", seed=3)) == [True, False, False]
    assert loaded(call("b", seed=3)) == [False] * 3
    assert loaded(call("c", seed=4)) == [True, False, False]
    assert loaded(call("d", seed=3)) == [True, False, False]


def test_an_abandoned_shard_ends(call):
    requested = call()
    with opened(requested) as run:
        shard = shards_of(requested, run)[0]
    samples = sample(requested, shard, is_given_up=lambda: True)
    assert samples.given_up
    assert samples.completed == []


def test_samples_completed_before_a_shard_is_abandoned_count(call):
    requested, looks = call(), iter([False, False, True])
    with opened(requested) as run:
        shard = shards_of(requested, run)[0]
    assert len(sample(requested, shard, is_given_up=lambda: next(looks)).completed) == 2


def test_worker_with_less_memory_than_asked_for_notes_it(call, monkeypatch):
    requested = call(rows=8, seed=11)
    with opened(requested) as run:
        [shard] = shards_of(requested, run)
    admit, refusals = Network.admit, iter([True])

    def short_of_memory(*options, **more):
        if next(refusals, False):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return admit(*options, **more)

    monkeypatch.setattr(Network, "admit", short_of_memory)
    note = "memory ran out: the run continues with 1 samples at once; --batch_size 1 gives the same samples"
    assert sample(requested, shard).notes == (note,)
    assert sample(requested, shard).notes == (note,)


def test_prompts_that_do_not_fit_fail_their_own_rows_only(tmp_path, models):
    small = make_model(tmp_path / "small", seed=0, kind="gpt2")
    rows = questions(6)
    rows[2]["question"] = "w3 " * 200
    requested = parameters(tmp_path, rows, model_theta=str(small), output=str(tmp_path / "o.jsonl"))
    outcome = draw(requested)
    assert (outcome.samples, outcome.failed) == (5, 1)
    assert [row["sample_idx"] for row in read(outcome.output)] == [0, 1, 3, 4, 5]
    assert any("1 rows have no sample" in note for note in outcome.notes)
    [failed] = [row for row in read(requested.directory / "rollouts/0001.jsonl") if row["error"]]
    assert (failed["instance_id"], failed["error"]["type"]) == ("row-2", "prompt")
    assert "the models take 128 with the answer" in failed["error"]["message"]
    assert draw(requested).made == 0


def test_a_hint_tells_two_uses_of_one_model_apart(tmp_path, models):
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


def test_an_adapter_tells_two_uses_of_one_model_apart(tmp_path, models):
    adapter = make_adapter(tmp_path / "adapter", models[0], scale=0.5)
    outcome = draw(
        parameters(tmp_path, questions(6), model_theta=str(models[0]), adapter_t=str(adapter), save_diagnostics=True)
    )
    assert min(row["kl_theta_mean"] for row in read(outcome.diagnostics)) > 1e-6


def test_models_without_a_chat_template_get_plain_text(tmp_path):
    base = make_model(tmp_path / "plain", tokenizer=make_tokenizer(WORDS, template=None))
    outcome = draw(parameters(tmp_path, questions(3), model_theta=str(base)))
    assert outcome.samples == 3


@pytest.mark.parametrize(
    ("options", "differs"),
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
def test_changed_parameters_are_refused_as_another_run(call, options, differs):
    with opened(call(rows=20)):
        pass
    with (
        pytest.raises(InputError, match=rf"holds another run: .*\b{differs}\b"),
        opened(call(**{"rows": 20} | options)),
    ):
        pass


@pytest.mark.parametrize(
    "options", [{"start_idx": 4}, {"num_samples": 3}, {"save_diagnostics": False}, {"workers": 2}, {"device": "auto"}]
)
def test_unrelated_parameters_do_not_change_the_identity(call, options):
    with opened(call()):
        pass
    with opened(call(**options)) as run:
        assert run.expected == 20


def test_moved_models_continue_the_run(tmp_path, call, models):
    requested = call()
    moved = make_model(tmp_path / "moved", seed=1)
    assert models_identity(call(model_t=str(moved))) == models_identity(requested)
    make_model(tmp_path / "moved", seed=2)
    assert models_identity(call(model_t=str(moved))) != models_identity(requested)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_theta": "/nowhere/m"}, r"--model_theta /nowhere/m: there is no such directory"),
        ({"model_t": "./nowhere"}, r"--model_t ./nowhere: there is no such directory"),
        ({"adapter_t": "nowhere"}, r"there is no adapter directory nowhere"),
        ({"dataset": "./nowhere.jsonl"}, r"nowhere.jsonl"),
        ({"start_idx": 20}, r"--start_idx 20: .* has 20 rows"),
        ({"hint": "{level}"}, r"--hint names \{level\}, which row-0 does not have: it has prompt, response, answer"),
    ],
)
def test_mistakes_are_one_line(call, options, message):
    with pytest.raises(InputError, match=message):
        draw(call(**options))
