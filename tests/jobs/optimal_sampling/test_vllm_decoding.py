"""Both models in a real vLLM: samples equal those of two models in transformers."""

import random
import re
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from rollmill.errors import InputError, RunStoppedError, ServingError
from rollmill.inference.server import SERVER_ENVIRONMENT
from rollmill.jobs.optimal_sampling import pair as pair_module
from rollmill.jobs.optimal_sampling import sampler, vllm_decoding
from rollmill.jobs.optimal_sampling.model import OptimalSamplingModel
from rollmill.jobs.optimal_sampling.model_spec import resolve_pair
from rollmill.jobs.optimal_sampling.sampler import SamplerSettings
from rollmill.jobs.optimal_sampling.vllm_decoding import VllmDecoder, VllmPair
from tests.inference.adapters import make_adapter
from tests.inference.vllm_processes import ONE_THREAD, prepared_vllm
from tests.jobs.optimal_sampling.runs import draw, parameters, questions
from tests.jobs.optimal_sampling.tiny_pairs import (
    answers,
    chi_square,
    decode,
    load_pair,
    make_model,
    requests,
    upper_bound,
)
from tests.waiting import wait_until

WORDS = 12
NO_NUMBERS = WORDS + 1
SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "words": WORDS}
PROMPTS = [
    ([random.Random(number).randrange(WORDS) for _ in range(1 + number % 11)], [number % WORDS] * (1 + number % 5))
    for number in range(150)
]

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER_ENVIRONMENT.exists(), reason="no vLLM: `make setup` installs it"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of a few words, with ids that are no words as real ones have, and an adapter of it that says other ones.

    Behind `NO_NUMBERS` its logits are not finite.
    """
    folder = tmp_path_factory.mktemp("models")
    base = make_model(folder / "base", ids=WORDS + 4, eos=[1, 2], initializer_range=0.3, **SIZES)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.model.embed_tokens.weight.data[NO_NUMBERS] = torch.nan
    model.save_pretrained(base)
    return base, str(make_adapter(folder / "adapter", base, scale=0.5))


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Every vLLM here has one thread, and is a fork of a process that has imported it."""
    with pytest.MonkeyPatch.context() as patch, prepared_vllm() as python:
        for name, value in (ONE_THREAD | {"ROLLMILL_VLLM_PYTHON": str(python)}).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def model(folders):
    """Both in one vLLM, for all tests that can share it: its start takes longer than they do. The last one kills it."""
    arguments = {"backend": "vllm", "batch_size": 64, "vllm_args": "--max-model-len 128"}
    with OptimalSamplingModel(*folders, **arguments) as started:
        yield started


@pytest.fixture(scope="module")
def pair(model):
    return model.pair


def drawn(pair, samples, **settings):
    """Key -> what was drawn."""
    return {item.key: item for item in VllmDecoder(pair, **{"batch_size": 64, **settings}).decode(samples)}


def differing(result, expected, rel=1e-3):
    """Answers that are not the same, and numbers of the others that are not nearly."""
    assert result.keys() == expected.keys()
    others = [key for key in expected if result[key].token_ids != expected[key].token_ids]
    for key in expected.keys() - set(others):
        assert result[key].finish_reason == expected[key].finish_reason
        for name, numbers in expected[key].diagnostics.items():
            assert result[key].diagnostics[name] == pytest.approx(numbers, rel=rel, abs=1e-4)
    return others


def remove_log(error):
    """It stays, since the error sends somebody to it."""
    log = Path(str(error).rpartition("(log: ")[2].rstrip(")"))
    assert [path.name for path in log.parent.iterdir()] == ["log"]
    shutil.rmtree(log.parent)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"alpha_method": "entropy", "temperature": 1.3},
        {"alpha_method": "fixed", "fixed_alpha": 0.2, "top_p": 0.9, "top_k": 6},
        {"temperature": 0},
        {"support_top_k": 3, "diagnostics": False},
        {"alpha_method": "fixed", "fixed_alpha": 1.0},
        {"alpha_method": "fixed", "fixed_alpha": 0.0},
    ],
)
def test_tokens_equal_those_of_transformers(folders, pair, settings):
    samples = requests(PROMPTS)
    expected = decode(load_pair(*folders), samples, batch_size=64, max_new_tokens=24, **settings)
    result = drawn(pair, samples, max_new_tokens=24, **settings)
    assert {"stop", "length"} == {item.finish_reason for item in expected.values()}
    assert differing(result, expected) == []


def test_samples_do_not_depend_on_the_batch(pair):
    samples = requests(PROMPTS[:40])
    together = drawn(pair, samples, max_new_tokens=30)
    assert differing(drawn(pair, samples[::-1], max_new_tokens=30, batch_size=3), together) == []


def test_answers_have_the_probabilities_of_q(folders, pair):
    prompts, most = ([3, 4, 0], [4]), 3
    expected = answers(folders, prompts, (1, 2), most, words=WORDS, method="kl_symmetry", temperature=1.2)
    settings = {"max_new_tokens": most, "temperature": 1.2, "diagnostics": False}
    result = drawn(pair, requests([prompts] * 10_000), **settings)
    counts = Counter(tuple(item.token_ids) for item in result.values())
    assert sum(counts.values()) == 10_000
    assert all(expected.get(answer, 0) > 0 for answer in counts)
    statistic, degrees = chi_square(counts, expected)
    assert degrees > 50
    assert statistic < upper_bound(degrees)
    cold = answers(folders, prompts, (1, 2), most, words=WORDS, method="kl_symmetry", temperature=1.1)
    statistic, degrees = chi_square(counts, cold)
    assert statistic > upper_bound(degrees)  # a distribution close to q is rejected


def test_closing_the_generator_ends_the_job_early(pair):
    decoding = VllmDecoder(pair, batch_size=4, max_new_tokens=20).decode(requests(PROMPTS))
    first = list(islice(decoding, 3))
    decoding.close()
    again = drawn(pair, requests(PROMPTS)[:20], max_new_tokens=20)
    assert all(again[item.key].token_ids == item.token_ids for item in first)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [(([3] * 127, [3] * 128), "has 128 tokens, and the models take 128 with the answer"), (([], [3]), "has no tokens")],
)
def test_prompts_that_do_not_fit_are_refused(pair, prompts, message):
    with pytest.raises(InputError, match=f"the prompt of 0 {message}"):
        drawn(pair, requests([prompts]))


def test_a_full_context_ends_an_answer(pair):
    result = drawn(pair, requests([([3] * 120, [4] * 126)]), max_new_tokens=50)[0]
    assert len(result.token_ids) <= 2


def test_theta_and_t_get_their_own_prompts_with_a_hint(folders, model):
    prompts, hinted = ["w3 w4 w5", "w6"], ["w7 w8 w3 w4 w5", "w9 w6"]
    settings = {"max_new_tokens": 20, "prompts_t": hinted}
    expected = OptimalSamplingModel(*folders).generate(prompts, **settings)
    assert model.generate(prompts, **settings).token_ids == expected.token_ids


def test_run_interrupted_within_a_shard_ends_with_equal_bytes(folders, model, tmp_path, monkeypatch):
    options = {"model_theta": folders[0], "model_t": folders[1], "backend": "vllm", "device": "auto"}
    total, broken = (
        parameters(tmp_path, questions(20), output=str(tmp_path / f"{name}.jsonl"), save_diagnostics=True, **options)
        for name in ("whole", "broken")
    )
    settings = SamplerSettings.of(total)
    decoder = model.decoder(batch_size=total.batch_size, **settings.decoding)
    monkeypatch.setattr(sampler, "_loaded", sampler._LoadedPair(settings, model, decoder, None, ExitStack()))
    draw(total)
    for most in (3, 6, 5):  # in the first shard twice, then over its end
        assert draw(broken, most) is None
    outcome = draw(broken)
    assert (outcome.made, outcome.samples) == (6, 20)
    rows = broken.directory.with_suffix(".jsonl").read_bytes().replace(b"broken/rollouts", b"whole/rollouts")
    assert rows == total.directory.with_suffix(".jsonl").read_bytes()
    assert broken.diagnostics.read_bytes() == total.diagnostics.read_bytes()


def test_unsynchronised_rows_are_detected_and_drawn_again(folders, monkeypatch, caplog):
    """A worker that lets everything in, a step that reads 32 tokens, and a cache that is too small."""
    monkeypatch.setattr(vllm_decoding, "_WORKER", "tests.jobs.optimal_sampling.careless_worker")
    caplog.set_level("INFO")
    few = "--max-model-len 64 --enable-chunked-prefill"
    few += " --block-size 32 --num-gpu-blocks-override 13"
    chosen = resolve_pair(folders[1])  # the adapter on both sides
    endless = replace(
        chosen, **{name: replace(getattr(chosen, name), end_tokens=frozenset()) for name in ("theta", "t")}
    )
    samples = requests(PROMPTS[:40])
    expected = decode(pair_module.load_pair(endless), samples, max_new_tokens=40)
    started = VllmPair(endless, batch_size=8, arguments=few)
    try:
        result = drawn(started, samples, max_new_tokens=40, batch_size=8)
    finally:
        started.close()
    assert differing(result, expected) == []
    assert {len(item.token_ids) for item in result.values()} == {40}
    redone = re.search(r"(\d+) times a sample of 40 fell out of step", caplog.text)
    assert redone
    assert int(redone[1]) >= 5


def test_models_that_one_vllm_cannot_serve_are_refused(folders, tmp_path):
    other = make_model(tmp_path / "other", seed=1, **SIZES)
    with pytest.raises(InputError, match="have weights of their own, and one vLLM holds one model with adapters"):
        OptimalSamplingModel(folders[0], other, backend="vllm")
    with pytest.raises(InputError, match="device 'cpu': vLLM takes the device that it is built for"):
        OptimalSamplingModel(*folders, backend="vllm", device="cpu")
    with pytest.raises(InputError, match="--pipeline-parallel-size 2: the pair engine is on one device"):
        OptimalSamplingModel(*folders, backend="vllm", vllm_args="--pipeline-parallel-size 2")
    (tmp_path / "flags.yaml").write_text("tensor-parallel-size: 2\n")
    with pytest.raises(InputError, match="is on one device: leave out tensor_parallel_size"):
        OptimalSamplingModel(*folders, backend="vllm", vllm_args=f"--config {tmp_path / 'flags.yaml'}")
    with pytest.raises(ServingError, match=r"while starting: .*unrecognized arguments: --wings") as caught:
        OptimalSamplingModel(*folders, backend="vllm", vllm_args="--wings 2")
    remove_log(caught.value)


def test_nan_logits_or_a_killed_engine_end_the_run(model):
    message = "the models' logits for 0 are not finite after 0 tokens: they overflow"
    with pytest.raises(RunStoppedError, match=message):
        drawn(model.pair, requests([([3, NO_NUMBERS], [4])]))
    keeper = psutil.Process(model.pair._process.pid)
    workers = keeper.children(recursive=True)
    for worker in workers:
        worker.kill()
    with pytest.raises(ServingError, match="the server ended with code 137 while it was sampling") as caught:
        model.generate(["w3 w4 w5"])
    model.close()
    remove_log(caught.value)
    wait_until(lambda: not any(item.is_running() for item in [keeper, *workers]), timeout=20)
