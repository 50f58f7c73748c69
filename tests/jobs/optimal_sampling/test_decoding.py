import logging
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.errors import InputError, RunStoppedError
from rollmill.jobs.optimal_sampling.decoding import Decoder
from rollmill.jobs.optimal_sampling.samples import SampleRequest
from rollmill.jobs.optimal_sampling.token_sampler import FIELDS
from tests.inference.adapters import make_adapter
from tests.jobs.optimal_sampling.tiny_pairs import (
    count_passes,
    cut,
    decode,
    load_pair,
    log_probs,
    make_model,
    mixture,
    requests,
    weight,
)

PROMPTS = [
    ([3, 4, 5], [6, 7]),
    ([8], [3, 4, 5, 6, 7, 8, 9, 10]),
    ([9, 9], [9, 9]),
    ([5, 4], [4]),
    ([2] * 20, [3] * 7),
    ([7], [7]),
    ([10, 3], [3, 10]),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "theta"), make_model(folder / "t", kind="gpt2", seed=1, eos=[2])


@pytest.fixture(scope="module")
def pair(folders):
    return load_pair(*folders)


@pytest.mark.parametrize("method", ["fixed", "kl_symmetry", "entropy"])
def test_diagnostics_equal_those_of_passes_without_a_cache(method, folders, pair):
    result = decode(pair, requests(PROMPTS), alpha_method=method, fixed_alpha=0.3, max_new_tokens=9, batch_size=3)
    assert any(item.finish_reason == "stop" and len(item.token_ids) < 9 for item in result.values())
    for key, (prompt_theta, prompt_t) in enumerate(PROMPTS):
        item = result[key]
        assert tuple(item.diagnostics) == FIELDS
        assert {len(numbers) for numbers in item.diagnostics.values()} == {len(item.token_ids)}
        for index in range(len(item.token_ids)):
            before = item.token_ids[:index]
            log_theta, log_t = log_probs(folders[0], prompt_theta + before), log_probs(folders[1], prompt_t + before)
            alpha = weight(log_theta, log_t, method, 0.3)
            log_q = mixture(log_theta, log_t, alpha)
            q = np.exp(log_q)
            kl_theta, kl_t = (q * (log_q - log_theta)).sum(), (q * (log_q - log_t)).sum()
            ess_theta, ess_t = (1 / (np.exp(2 * log_p) / q).sum() for log_p in (log_theta, log_t))
            expected = [alpha, kl_theta, kl_t, abs(kl_theta - kl_t), ess_theta / ess_t]
            messages = [item.diagnostics[name][index] for name in FIELDS]
            assert messages == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("cuts", [{}, {"temperature": 0.7, "top_p": 0.9, "top_k": 5}, {"temperature": 0.0}])
def test_log_probabilities_are_those_of_the_sampling_distribution(cuts, folders, pair):
    result = decode(pair, requests(PROMPTS[:3]), alpha_method="fixed", max_new_tokens=4, **cuts)
    for key, (prompt_theta, prompt_t) in enumerate(PROMPTS[:3]):
        item = result[key]
        assert len(item.logprobs) == len(item.token_ids)
        for index, token in enumerate(item.token_ids):
            before = item.token_ids[:index]
            log_theta, log_t = log_probs(folders[0], prompt_theta + before), log_probs(folders[1], prompt_t + before)
            expected = np.log(cut(mixture(log_theta, log_t, 0.5), **cuts)[token])
            assert item.logprobs[index] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_answers_end_with_either_models_end_token(pair):
    result = decode(pair, requests(PROMPTS * 6), max_new_tokens=12)
    last = {item.token_ids[-1] for item in result.values() if item.finish_reason == "stop"}
    assert last == {1, 2}
    for item in result.values():
        assert not {1, 2} & set(item.token_ids[:-1])
        assert item.finish_reason == "stop" or len(item.token_ids) == 12


def test_samples_do_not_depend_on_batch_order_or_padding(pair):
    samples = requests(PROMPTS * 3)
    alone = decode(pair, samples, max_new_tokens=10, batch_size=1)
    assert len({tuple(item.token_ids) for item in alone.values()}) > 10
    for batch_size, order in ((2, samples), (5, samples[::-1]), (21, samples[7:] + samples[:7])):
        result = decode(pair, order, max_new_tokens=10, batch_size=batch_size)
        for key, item in alone.items():
            assert result[key].token_ids == item.token_ids
            assert result[key].finish_reason == item.finish_reason
            for name, numbers in item.diagnostics.items():
                assert result[key].diagnostics[name] == pytest.approx(numbers, rel=1e-3, abs=1e-4)


@pytest.fixture(scope="module")
def wide_pairs(tmp_path_factory):
    """Two models wide enough for the kernels of large ones, one with its adapter, and one with hints, in bfloat16."""
    folder = tmp_path_factory.mktemp("wide")
    wide = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2}
    narrow = {"n_embd": 128, "n_head": 4, "n_layer": 2}
    theta = make_model(folder / "theta", words=40, initializer_range=0.1, **wide)
    t = make_model(folder / "t", words=40, kind="gpt2", seed=1, eos=[2], initializer_range=0.1, **narrow)
    adapter = str(make_adapter(folder / "adapter", theta, scale=0.3))
    mistral = make_model(folder / "mistral", words=40, kind="mistral", seed=2, **wide)
    pairs = [(theta, t), (theta, adapter), (mistral, None)]
    return [load_pair(*pair, dtype="bfloat16", device="cpu") for pair in pairs]


@settings(max_examples=8, deadline=None)
@given(
    which=st.integers(0, 2),
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=7),
    batch_size=st.integers(2, 9),
    seed=st.integers(0, 2**31),
)
def test_logits_do_not_depend_on_the_batch_to_the_bit(wide_pairs, which, lengths, batch_size, seed):
    words = random.Random(seed)
    prompts = [tuple([words.randrange(3, 40) for _ in range(length)] for length in both) for both in lengths]
    samples = requests(prompts, first=seed)
    alone = decode(wide_pairs[which], samples, max_new_tokens=7, batch_size=1)
    together = decode(wide_pairs[which], words.sample(samples, len(samples)), max_new_tokens=7, batch_size=batch_size)
    assert together == alone


def test_a_lower_token_limit_gives_a_prefix(pair):
    short = decode(pair, requests(PROMPTS), max_new_tokens=3)
    long = decode(pair, requests(PROMPTS), max_new_tokens=10)
    assert all(long[key].token_ids[:3] == item.token_ids for key, item in short.items())


def test_ended_rows_are_replaced_at_once(folders):
    pair, batch = load_pair(*folders), 4
    passes = count_passes(pair.theta.network)
    samples = requests([([4, 5 + n % 5], [3, 4]) for n in range(30)])
    result = decode(pair, samples, batch_size=batch, max_new_tokens=10, alpha_method="fixed")
    lengths = [len(item.token_ids) for item in result.values()]
    assert len(set(lengths)) > 4
    steps = [rows for rows, tokens in passes if tokens == 1]
    assert sum(rows for rows, tokens in passes if tokens > 1) == len(samples)
    # A prompt's pass gives the first token; every other one is one row of one step, and only a step of one is idle.
    assert 0 <= sum(steps) - (sum(lengths) - len(lengths)) <= steps.count(2)
    # Steps are full until nobody waits, and then lose a row with every answer that ends.
    full = steps.count(batch)
    assert steps == [batch] * full + sorted(steps[full:], reverse=True)
    assert len(steps) - full < 10


def test_samples_are_taken_as_they_are_needed(pair):
    taken = []

    def source():
        for sample in requests(PROMPTS * 3):
            taken.append(sample.key)
            yield sample

    drawing = Decoder(pair, batch_size=2, max_new_tokens=5).decode(source())
    first = next(drawing)
    assert first.key in (0, 1)
    assert len(taken) <= 5
    drawing.close()
    assert pair.theta.network._cache.lengths == []


def test_out_of_memory_halves_the_batch(folders, caplog):
    plain = decode(load_pair(*folders), requests(PROMPTS), max_new_tokens=10)
    pair = load_pair(*folders)

    def too_many(_, args, kwargs):
        if len(kwargs["input_ids"]) > 3:
            torch.empty(2**60)  # memory really runs out

    pair.t.network.model.register_forward_pre_hook(too_many, with_kwargs=True)
    decoder = Decoder(pair, batch_size=7, max_new_tokens=10)
    with caplog.at_level(logging.WARNING):
        result = list(decoder.decode(requests(PROMPTS)))
    assert sorted(item.key for item in result) == list(range(7))
    for item in result:
        assert item.token_ids == plain[item.key].token_ids
    assert decoder.batch_size == 3
    assert [line.getMessage() for line in caplog.records] == [
        "memory ran out with 7 samples at once (batch 7): going on with 3"
    ]


def test_out_of_memory_within_a_step(folders, caplog):
    samples = requests(PROMPTS * 2)
    plain = decode(load_pair(*folders), samples, max_new_tokens=10)
    pair = load_pair(*folders)
    left = [6]

    def sometimes(*_):
        left[0] -= 1
        if left[0] == 0:
            torch.empty(2**60)

    pair.t.network.model.register_forward_pre_hook(sometimes)
    result = list(Decoder(pair, batch_size=5, max_new_tokens=10).decode(samples))
    assert sorted(item.key for item in result) == list(range(14))
    assert all(item.token_ids == plain[item.key].token_ids for item in result)
    assert caplog.text.count("memory ran out") == 1


def test_too_little_memory_for_one_sample_is_an_error(folders):
    pair = load_pair(*folders)
    pair.t.network.model.register_forward_pre_hook(lambda *_: torch.empty(2**60) and None)
    with pytest.raises(RuntimeError, match="memory"):
        decode(pair, requests(PROMPTS), max_new_tokens=4, batch_size=4)


def test_logits_that_are_not_finite_end_the_run(tmp_path):
    pair = load_pair(make_model(tmp_path / "m"))
    with torch.no_grad():
        pair.theta.network.model.get_input_embeddings().weight[5] = torch.nan
    with pytest.raises(RunStoppedError, match="logits for b are not finite after 0 tokens"):
        decode(pair, [SampleRequest("a", [3], [3], 0), SampleRequest("b", [5], [5], 0)])


def test_a_full_context_ends_an_answer(tmp_path):
    pair = load_pair(make_model(tmp_path / "m", kind="gpt2", n_positions=8, eos=None))
    pair = type(pair)(pair.theta, pair.t, pair.vocabulary, frozenset(), pair.device, pair.used)
    samples = requests([([3] * 7, [4]), ([3], [4] * 5)])
    result = decode(pair, samples, max_new_tokens=50)
    assert [len(result[key].token_ids) for key in range(2)] == [1, 3]
    assert {item.finish_reason for item in result.values()} == {"length"}
    with pytest.raises(InputError, match=r"^the prompt of 0 has 8 tokens, and the models take 8 with the answer"):
        decode(pair, requests([([3], [4] * 8)]))


def test_a_prompt_without_tokens_is_refused(pair):
    with pytest.raises(InputError, match=r"^the prompt of 0 has no tokens"):
        decode(pair, requests([([], [3])]))
    assert Decoder(pair).refusal(SampleRequest(0, [3], [], 0))
    assert Decoder(pair).refusal(SampleRequest(0, [3], [4], 0)) is None


def test_no_requests(pair):
    assert decode(pair, []) == {}


def test_alpha_is_recorded_without_diagnostics(pair):
    plain = decode(pair, requests(PROMPTS), max_new_tokens=6)
    result = decode(pair, requests(PROMPTS), max_new_tokens=6, diagnostics=False)
    for key, item in result.items():
        assert item.diagnostics == {"alpha": plain[key].diagnostics["alpha"]}
        assert item.token_ids == plain[key].token_ids


def test_a_support_constraint_limits_q_to_the_targets_tokens(folders, pair):
    result = decode(pair, requests(PROMPTS * 4), max_new_tokens=6, support_top_k=2)
    for key, item in result.items():
        for index, token in enumerate(item.token_ids):
            log_t = log_probs(folders[1], PROMPTS[key % 7][1] + item.token_ids[:index])
            assert token in np.argsort(-log_t)[:2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha_method": "magic"}, "alpha_method magic: give one of fixed, kl_symmetry,"),
        ({"fixed_alpha": 1.5}, "fixed_alpha 1.5: give from 0 to 1"),
        ({"alpha_tol": 0}, "alpha_tol 0: give above 0"),
        ({"batch_size": 0}, "batch_size 0: give 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens 0: give 1 or more"),
        ({"temperature": -1}, "temperature -1: give 0 or more"),
        ({"temperature": float("nan")}, "temperature nan: give 0 or more"),
        ({"top_p": 0}, "top_p 0: give above 0, up to 1"),
        ({"top_k": -2}, "top_k -2: give 1 or more, or -1 for all"),
        ({"support_top_p": 1.1}, "support_top_p 1.1: give above 0, up to 1"),
    ],
)
def test_settings_out_of_range_are_refused(pair, options, message):
    with pytest.raises(InputError) as caught:
        Decoder(pair, **options)
    assert str(caught.value).startswith(message)
