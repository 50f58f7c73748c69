import shutil
import warnings

import pytest
import torch

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling import pair as pair_module
from rollmill.jobs.optimal_sampling.model_spec import resolve_pair
from rollmill.jobs.optimal_sampling.network import BASE, Network
from tests.gpus import FakeMachine
from tests.inference.adapters import make_adapter
from tests.jobs.optimal_sampling.tiny_pairs import (
    count_passes,
    decode,
    load_pair,
    log_probs,
    make_config,
    make_model,
    make_tokenizer,
    requests,
    weight,
)

PROMPTS = [([3, 4, 5], [6, 7]), ([8], [3, 4, 5, 6, 7, 8, 9, 10]), ([9, 9], [9, 9]), ([5, 4], [4, 5])]


@pytest.fixture
def base(tmp_path):
    return make_model(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path, base):
    return str(make_adapter(tmp_path / "adapter", base, scale=0.3))


class Driven:
    """A network, and each row's tokens; every step is compared with a pass without a cache."""

    def __init__(self, kind):
        torch.manual_seed(1)
        self.model = Network(torch.nn.Module.eval(_load(kind)), kind)
        self.texts = {}

    def admit(self, *lengths):
        prompts = [[int(n) for n in torch.randint(0, 12, (length,))] for length in lengths]
        rows, logits = self.model.admit(prompts, [BASE] * len(prompts))
        for row, prompt, actual in zip(rows, prompts, logits, strict=True):
            self.texts[row] = prompt
            self.check(row, actual)
        return rows

    def advance(self, times):
        for _ in range(times):
            tokens = dict(zip(sorted(self.texts), torch.randint(0, 12, (len(self.texts),)).tolist(), strict=True))
            logits = self.model.advance(tokens)
            for row, token in tokens.items():
                self.texts[row].append(token)
                self.check(row, logits[row])

    def release(self, *rows):
        self.model.release(rows)
        for row in rows:
            del self.texts[row]

    def compact(self):
        moved = self.model.compact()
        self.texts = {moved[row]: text for row, text in self.texts.items()}

    def check(self, row, actual):
        plain = self.model.model(torch.tensor([self.texts[row]]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(actual, plain, rtol=1e-4, atol=1e-4)


def _load(kind):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(make_config(kind, 12, eos_token_id=1))


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2", "mistral"])
def test_rows_do_not_depend_on_each_other(kind):
    driven = Driven(kind)
    assert driven.admit(3, 9, 1) == [0, 1, 2]
    driven.advance(4)
    driven.release(1)
    assert driven.admit(30) == [1]  # another's place
    driven.advance(8)
    assert driven.admit(2, 2) == [3, 4]  # new places
    driven.advance(2)
    driven.release(0, 2, 4)
    driven.compact()
    assert sorted(driven.texts) == [0, 1]
    driven.advance(3)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_idle_rows_change_nothing(kind):
    driven = Driven(kind)
    driven.model.reset([BASE] * 4)
    assert driven.admit(3) == [0]
    driven.advance(2)
    assert driven.admit(40, 2) == [1, 2]  # the places of idle rows
    driven.advance(3)
    driven.release(0)
    driven.compact()
    assert sorted(driven.texts) == [1, 2]
    driven.advance(2)
    assert driven.admit(5, 6) == [0, 3]
    driven.advance(2)


@torch.inference_mode()
def test_cache_memory_is_rows_times_the_longest_row():
    driven = Driven("llama")
    slots = driven.model._cache
    driven.admit(60, 3)
    driven.advance(4)
    assert slots.layers[0].keys.shape == (2, 1, 64, 8)
    driven.advance(1)
    assert slots.layers[1].values.shape == (2, 1, 128, 8)
    driven.release(0)
    driven.compact()
    assert slots.layers[0].keys.shape == (1, 1, 64, 8)
    driven.advance(2)
    driven.release(0)
    driven.compact()
    assert slots.layers[0].keys.numel() == 0
    driven.admit(5)
    driven.advance(1)


def test_longest_row_follows_from_the_architecture():
    assert Network(_load("mistral"), "m").context_length == 48
    assert Network(_load("gpt2"), "m").context_length == 128
    with pytest.raises(InputError, match=r"^m \(mamba\) has layers that keep more than keys and values \(Linear"):
        Network(_load("mamba"), "m")


def test_shared_weights_are_loaded_once(base, tmp_path):
    (tmp_path / "link").symlink_to(base)
    for other in (None, base, base + "/", str(tmp_path / "link")):
        pair = load_pair(base, other)
        assert pair.shared
        assert pair.same
        chosen = resolve_pair(base, other)
        assert chosen.theta.tokenizer is chosen.t.tokenizer
    assert (pair.vocabulary, pair.end_tokens, pair.context_length) == (12, {1}, 2048)


def test_two_models(base, tmp_path):
    other = make_model(tmp_path / "other", kind="gpt2", seed=1, ids=16, eos=[2, 3])
    pair = load_pair(base, other)
    assert not pair.shared
    assert (pair.vocabulary, pair.end_tokens, pair.context_length) == (12, {1, 2, 3}, 128)
    result = decode(pair, requests(PROMPTS), max_new_tokens=6, alpha_method="fixed", fixed_alpha=0.3)
    assert max(token for item in result.values() for token in item.token_ids) < 12


def test_the_tokenizers_end_token_where_the_model_has_none(tmp_path):
    pair = load_pair(make_model(tmp_path / "m", eos=None, tokenizer=make_tokenizer(eos="w5")))
    assert pair.end_tokens == {5}


def test_an_adapter_and_its_base_share_weights(base, adapter, tmp_path):
    for pair in (
        load_pair(base, adapter),
        load_pair(base, adapter_t=adapter),
        load_pair(base, base, adapter_t=adapter),
    ):
        assert pair.shared
        assert not pair.same
        assert (pair.theta.adapter, pair.t.adapter) == (BASE, "adapter_0")
        assert pair.end_tokens == {1}
    assert load_pair(adapter, adapter).same
    two = load_pair(adapter, str(make_adapter(tmp_path / "second", base, rank=4, scale=0.2)))
    assert (two.theta.adapter, two.t.adapter) == ("adapter_0", "adapter_1")
    assert two.shared


def test_one_pass_of_base_and_adapter_equals_two(base, adapter, tmp_path):
    apart = str(shutil.copytree(base, tmp_path / "apart"))
    item, two = load_pair(base, adapter), load_pair(base, apart, adapter_t=adapter)
    assert not two.shared
    passes = count_passes(item.theta.network)
    settings = {"max_new_tokens": 12, "batch_size": 3}
    result, plain = decode(item, requests(PROMPTS), **settings), decode(two, requests(PROMPTS), **settings)
    for key, drawn in result.items():
        assert drawn.token_ids == plain[key].token_ids
        for name, numbers in drawn.diagnostics.items():
            assert numbers == pytest.approx(plain[key].diagnostics[name], rel=2e-3, abs=1e-5)
        assert max(drawn.diagnostics["kl_theta"]) > 1e-3  # the adapter does something
    assert {rows for rows, _ in passes} <= {2, 4, 6}  # both sides of every sample in one pass


def test_two_adapters_in_one_pass(base, adapter, tmp_path):
    second = str(make_adapter(tmp_path / "second", base, rank=4, scale=0.2))
    apart = str(shutil.copytree(base, tmp_path / "apart"))
    settings = {"max_new_tokens": 8, "alpha_method": "entropy"}
    item = decode(load_pair(adapter, second), requests(PROMPTS), **settings)
    two = decode(load_pair(adapter, apart, adapter_t=second), requests(PROMPTS), **settings)
    assert [item[key].token_ids for key in range(4)] == [two[key].token_ids for key in range(4)]


def adapted_log_probs(base, adapter, ids):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks Transformers by an old name
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(plain, adapter).eval()
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()


KINDS_OF_ADAPTERS = {
    "dora": {"use_dora": True},
    "whole layers": {"modules_to_save": ["lm_head"]},
    "a rank beyond vLLM's": {"rank": 600},
}


DORA = ("dora", True)


@pytest.mark.parametrize(
    ("kind", "mixed"), [(kind, mixed) for kind in KINDS_OF_ADAPTERS for mixed in (False, True) if (kind, mixed) != DORA]
)
def test_adapters_that_only_peft_runs(tmp_path, kind, mixed):
    base = make_model(tmp_path / "base", kind="qwen2")  # it has biases
    adapter = str(make_adapter(tmp_path / "adapter", base, scale=0.3, **KINDS_OF_ADAPTERS[kind]))
    other = base if mixed else str(shutil.copytree(base, tmp_path / "apart"))
    drawn = decode(load_pair(base, other, adapter_t=adapter), requests([([3, 4], [5, 6, 7])]), max_new_tokens=1)[0]
    log_theta, log_t = log_probs(base, [3, 4]), adapted_log_probs(base, adapter, [5, 6, 7])
    assert drawn.diagnostics["alpha"] == pytest.approx([weight(log_theta, log_t, "kl_symmetry")], abs=1e-4)


def test_a_dora_adapter_cannot_be_mixed_with_others(base, tmp_path):
    adapter = str(make_adapter(tmp_path / "adapter", base, use_dora=True))
    assert load_pair(adapter, adapter).same
    with pytest.raises(InputError, match=r"does not run .* is a DoRA adapter: merge it .* give that as --model_t$"):
        load_pair(base, adapter_t=adapter)


def test_adapters_that_replace_biases(tmp_path):
    base = make_model(tmp_path / "base", kind="qwen2")
    adapter = str(make_adapter(tmp_path / "adapter", base, scale=0.3, bias="all"))
    load_pair(base, str(shutil.copytree(base, tmp_path / "apart")), adapter_theta=adapter)
    assert load_pair(adapter, adapter).same
    with pytest.raises(InputError, match=r"its biases replace the base's: .* give that as --model_theta$"):
        load_pair(base, adapter_theta=adapter)


@pytest.mark.parametrize("side", ["theta", "t"])
def test_adapters_that_vllm_cannot_serve_are_refused_with_their_flag(base, tmp_path, side):
    adapter = str(make_adapter(tmp_path / "adapter", base, use_dora=True))
    with pytest.raises(InputError, match=rf"vLLM does not serve .* DoRA adapter: .* give that as --model_{side}$"):
        resolve_pair(base, base, runner="vllm", **{f"adapter_{side}": adapter})


def test_one_model_with_one_prompt_has_one_row(base):
    pair = load_pair(base)
    passes = count_passes(pair.theta.network)
    result = decode(pair, requests([([3, 4], [3, 4]), ([5], [6, 7])]), max_new_tokens=3, alpha_method="fixed")
    assert passes[:2] == [(1, 2), (2, 2)]
    assert result[0].diagnostics["kl_theta"] == pytest.approx([0] * len(result[0].token_ids), abs=1e-6)
    assert result[1].diagnostics["kl_theta"][0] > 1e-4


def test_half_precision_weights_give_float32_probabilities(base):
    pair = load_pair(base, dtype="bfloat16")
    assert next(pair.theta.network.model.parameters()).dtype == torch.bfloat16
    result = decode(pair, requests([([3, 4], [5])]), max_new_tokens=1, alpha_method="fixed", fixed_alpha=0.25)[0]
    log_theta, log_t = (log_probs(base, ids, torch.bfloat16) for ids in ([3, 4], [5]))
    log_q = torch.tensor(0.25 * log_theta + 0.75 * log_t).log_softmax(-1).numpy()
    kl = float((2.718281828459045**log_q * (log_q - log_theta)).sum())
    assert result.diagnostics["kl_theta"][0] == pytest.approx(kl, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_theta": "/no/such/model"}, "cannot load the model /no/such/model: "),
        ({"device": "cuda:0"}, "device 'cuda:0': this machine has no GPU: give cpu"),
        ({"device": "abacus"}, "device 'abacus': there is no such device: give cuda or cpu"),
        ({"dtype": "int4"}, "dtype 'int4': give one of float16, bfloat16, float32"),
        ({"adapter_t": "nowhere"}, "there is no adapter directory nowhere: "),
    ],
)
def test_unloadable_model_is_reported_in_one_line(base, options, message, monkeypatch, tmp_path):
    FakeMachine(tmp_path, monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError) as caught:
        load_pair(**{"model_theta": base, **options})
    assert str(caught.value).startswith(message)


def test_unusable_gpu_never_falls_back_to_the_cpu(base, monkeypatch, tmp_path):
    machine = FakeMachine(tmp_path, monkeypatch)
    machine.show("nvidiactl", driver="570.133.20")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in (None, "cuda"):
        with pytest.raises(InputError, match=r"^an NVIDIA GPU is here .*driver 570.133.20"):
            load_pair(base, device=device)
    assert load_pair(base, device="cpu").used == {"device": "cpu", "dtype": "float32", "count": 1}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert load_pair(base, dtype="bfloat16").used == {"device": "cpu", "dtype": "bfloat16", "count": 1}


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), OSError(12, "Cannot allocate memory")]
)
def test_out_of_memory_on_a_device_while_loading_is_one_line(base, monkeypatch, error):
    def no_room(*_, **__):
        raise error

    monkeypatch.setattr(pair_module.AutoModelForCausalLM, "from_pretrained", no_room)
    with pytest.raises(InputError) as caught:
        load_pair(base)
    message = f"memory ran out while {base} was loaded on 1 x cpu, float32: give --dtype bfloat16, or smaller models"
    assert str(caught.value).startswith(message)


def test_out_of_memory_while_loading_is_reported_in_one_line(base, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_, **__: torch.empty(2**60))  # memory really runs out
    with pytest.raises(InputError, match=r"^memory ran out while .* on 1 x cpu, bfloat16: give smaller models"):
        load_pair(base, dtype="bfloat16")


def test_an_adapter_of_another_base_is_refused(adapter, tmp_path):
    other = make_model(tmp_path / "other", kind="gpt2")
    with pytest.raises(InputError, match="trained for"):
        load_pair(other, adapter_t=adapter)
    with pytest.raises(InputError, match="is an adapter, and"):
        load_pair(adapter, adapter_theta=adapter)


def test_vocabularies_are_compared(base, tmp_path):
    other = make_model(tmp_path / "other", words=13)
    with pytest.raises(InputError, match="differ in 1 tokens: 'w12' is missing and 12"):
        load_pair(base, other)
