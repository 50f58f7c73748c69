"""Samples have the distribution q: all answers are enumerated in float64 by other code, and counted."""

from collections import Counter

import pytest
import torch
from transformers import LogitsProcessor

from rollmill.jobs.optimal_sampling.truncation import draw, sampling_distribution
from tests.jobs.optimal_sampling.tiny_pairs import (
    answers,
    chi_square,
    decode,
    load_model,
    load_pair,
    make_model,
    requests,
    upper_bound,
)

ENDS = (1, 2)
LENGTH = 4
SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "words": 5}
PROMPTS = [3, 4, 0], [4]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two models of five words; an answer of one ends with 1, of the other with 2."""
    folder = tmp_path_factory.mktemp("tiny")
    theta = make_model(folder / "theta", seed=3, eos=[ENDS[0]], initializer_range=0.7, **SMALL)
    return theta, make_model(folder / "t", seed=4, eos=[ENDS[1]], initializer_range=0.7, **SMALL)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "theta", words=40), make_model(folder / "t", words=40, kind="gpt2", seed=1, eos=[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draws", "settings"),
    [
        (100_000, {"method": "fixed", "fixed": 0.3}),
        (100_000, {"method": "entropy"}),
        (100_000, {"method": "kl_symmetry"}),
        (20_000, {"method": "kl_symmetry", "temperature": 0.6}),
        (20_000, {"method": "kl_symmetry", "top_p": 0.8}),
        (20_000, {"method": "fixed", "fixed": 0.6, "top_k": 2}),
        (20_000, {"method": "entropy", "temperature": 1.5, "top_p": 0.9, "top_k": 4}),
    ],
)
def test_answers_have_the_probabilities_of_q(tiny, draws, settings):
    expected = answers(tiny, PROMPTS, ENDS, LENGTH, **settings)
    options = {"alpha_method": settings["method"], "fixed_alpha": settings.get("fixed", 0.5)}
    options |= {name: settings[name] for name in ("temperature", "top_p", "top_k") if name in settings}
    result = decode(
        load_pair(*tiny),
        requests([PROMPTS] * draws),
        batch_size=2048,
        max_new_tokens=LENGTH,
        diagnostics=False,
        **options,
    )
    counts = Counter(tuple(item.token_ids) for item in result.values())
    assert sum(counts.values()) == draws
    assert all(expected.get(answer, 0) > 0 for answer in counts)
    statistic, degrees = chi_square(counts, expected)
    assert degrees > 5
    assert statistic < upper_bound(degrees)


@pytest.mark.slow
def test_the_test_rejects_another_distribution(tiny):
    expected = answers(tiny, PROMPTS, ENDS, LENGTH, method="fixed", fixed=0.3)
    result = decode(
        load_pair(*tiny),
        requests([PROMPTS] * 20_000),
        batch_size=2048,
        max_new_tokens=LENGTH,
        alpha_method="fixed",
        fixed_alpha=0.36,
        diagnostics=False,
    )
    counts = Counter(tuple(item.token_ids) for item in result.values())
    statistic, degrees = chi_square(counts, expected)
    assert statistic > upper_bound(degrees)


class DrawByUniforms(LogitsProcessor):
    """Makes `generate` emit the package's draw from its own distribution, with a sample's uniforms."""

    def __init__(self, seed, settings):
        self.generator, self.settings = torch.Generator().manual_seed(seed), settings

    def __call__(self, input_ids, scores):
        uniform = torch.rand(1, generator=self.generator, dtype=torch.float64)
        token = draw(sampling_distribution(scores.log_softmax(-1), **self.settings), uniform)
        return torch.full_like(scores, -torch.inf).scatter(-1, token[:, None], 0.0)


def generate(folder, prompt, processors, tokens=12):
    """Transformers' own answer, without its prompt."""
    model = load_model(folder, torch.float32)
    ids = torch.tensor([prompt])
    options = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": list(ENDS)}
    out = model.generate(ids, max_new_tokens=tokens, do_sample=False, logits_processor=processors, **options)
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize(
    "cuts",
    [
        {"temperature": 0.0, "top_p": 1.0, "top_k": -1},
        {"temperature": 1.0, "top_p": 1.0, "top_k": -1},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 10},
    ],
)
def test_alpha_1_and_0_are_the_models_alone(models, alpha, cuts):
    pairs = [([3 + n % 30] * (1 + n % 5), [5, 4 + n]) for n in range(12)]
    samples = requests(pairs)
    settings = {"alpha_method": "fixed", "fixed_alpha": alpha, "batch_size": 5, "max_new_tokens": 12}
    result = decode(load_pair(*models), samples, **settings, **cuts)
    texts = set()
    for sample in samples:
        prompt = sample.prompt_ids_theta if alpha else sample.prompt_ids_t
        greedy = cuts["temperature"] == 0
        plain = generate(models[0 if alpha else 1], prompt, [] if greedy else [DrawByUniforms(sample.seed, cuts)])
        assert result[sample.key].token_ids == plain
        texts.add(tuple(plain))
    assert len(texts) > 3


def test_half_precision_weights_sample_nearly_the_same_distribution(models):
    samples = requests([([3 + n % 30, 7], [5, 4 + n % 30]) for n in range(300)])
    settings = {"alpha_method": "kl_symmetry", "max_new_tokens": 1, "batch_size": 64}
    plain = decode(load_pair(*models), samples, **settings)
    for dtype, share in (("float16", 0.99), ("bfloat16", 0.95)):
        result = decode(load_pair(*models, dtype=dtype), samples, **settings)
        same = sum(result[key].token_ids == item.token_ids for key, item in plain.items())
        assert share * 300 <= same


def test_shared_weights_sample_like_two_sets(models, tmp_path):
    """Two prompts on one model: the rows of both in one pass."""
    pairs = [([3 + n, 7], [5, 4 + n, 9]) for n in range(8)]
    copy = make_model(tmp_path / "copy", words=40)  # the same seed
    item = decode(load_pair(models[0]), requests(pairs), max_new_tokens=10)
    two = decode(load_pair(models[0], copy), requests(pairs), max_new_tokens=10)
    assert {key: drawn.token_ids for key, drawn in item.items()} == {key: drawn.token_ids for key, drawn in two.items()}
