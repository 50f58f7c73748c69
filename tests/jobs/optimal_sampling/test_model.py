import subprocess
import sys

import pytest
import torch

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.token_sampler import FIELDS
from rollmill.optimal_sampling import OptimalSamplingModel, create_optimal_sampling_model
from tests.jobs.optimal_sampling.tiny_pairs import log_probs, make_model, make_tokenizer

PROMPTS = ["w3 w4", "w5", "w6 w7 w8 w9"]
OTHER = "w4 {% for m in messages %}{{ m.content }} {% endfor %}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    other = make_tokenizer(template=OTHER)
    return make_model(folder / "theta"), make_model(folder / "t", seed=1, eos=[2], tokenizer=other)


@pytest.fixture(scope="module")
def model(folders):
    return create_optimal_sampling_model(model_theta=folders[0], model_t=folders[1])


def test_generate_returns_samples_and_diagnostics(model):
    out = model.generate(PROMPTS * 4, max_new_tokens=9, seed=3)
    longest = max(out.lengths)
    assert len(set(out.lengths)) > 2
    assert {"stop", "length"} >= set(out.finish_reasons)
    assert out.lengths == [len(ids) for ids in out.token_ids] == out.mask.sum(-1).tolist()
    assert tuple(out.diagnostics) == FIELDS
    for values in (out.alpha_values, out.ess_ratios, out.mask, *out.diagnostics.values()):
        assert values.shape == (12, longest)
    for values in (out.alpha_values, out.ess_ratios, *out.diagnostics.values()):
        assert bool(values.isfinite().all())
        assert bool((values[~out.mask] == 0).all())
    assert bool((out.alpha_values[out.mask] > 0).all())
    assert out.diagnostics["kl_gap"].max() < 1e-4
    for text, ids in zip(out.generated_texts, out.token_ids, strict=True):
        assert text.split() == [f"w{number}" for number in ids if number != 1]  # w1 is special


def test_answers_depend_on_the_seed(model):
    first, again, other = (model.generate(PROMPTS, max_new_tokens=9, seed=seed) for seed in (1, 1, 2))
    assert first.token_ids == again.token_ids != other.token_ids
    assert bool((first.alpha_values == again.alpha_values).all())
    # The same prompt at several indices gets different answers.
    assert len({tuple(ids) for ids in model.generate(["w3"] * 9, max_new_tokens=9).token_ids}) > 4


def test_without_diagnostics(model):
    out = model.generate(PROMPTS, max_new_tokens=5, return_diagnostics=False)
    assert out.diagnostics is None
    assert out.ess_ratios is None
    assert out.alpha_values.shape == out.mask.shape


def test_no_prompts(model):
    out = model.generate([])
    assert (out.generated_texts, out.alpha_values.numel(), out.mask.numel()) == ([], 0, 0)


def test_messages_are_rendered_by_each_models_own_template(model):
    messages = [{"role": "user", "content": "w3"}, {"role": "user", "content": "w5"}]
    request = model.request("key", messages, None, 7)
    assert (request.prompt_ids_theta, request.prompt_ids_t, request.seed) == ([3, 2, 5, 2], [4, 3, 5], 7)
    assert model.request("key", "w3", messages, 7).prompt_ids_t == [4, 3, 5]
    assert model.request("key", "w3 w4", None, 7).prompt_ids_t == [3, 4]


def test_a_hint_for_the_target_alone(folders):
    model = OptimalSamplingModel(folders[0], alpha_method="fixed", fixed_alpha=0.0)
    assert model.pair.same
    out = model.generate(["w3"], prompts_t=["w7 w8"], max_new_tokens=1, temperature=0)
    assert out.token_ids == [[int(log_probs(folders[0], [7, 8]).argmax())]]
    assert out.diagnostics["kl_t"].abs().max() < 1e-6 < out.diagnostics["kl_theta"].max()


def test_a_reduced_batch_size_stays(folders, caplog):
    model = OptimalSamplingModel(folders[0], batch_size=4)

    def too_many(_, args, kwargs):
        if len(kwargs["input_ids"]) > 2:
            torch.empty(2**60)

    model.pair.theta.network.model.register_forward_pre_hook(too_many, with_kwargs=True)
    for _ in range(2):
        model.generate(["w3", "w4", "w5", "w6"], max_new_tokens=3)
    assert caplog.text.count("memory ran out") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.generate("w3"), "prompts is one text: give a list"),
        (lambda model: model.generate(["w3"], prompts_t=[]), "there are 1 prompts and 0 prompts_t: give one for each"),
        (lambda model: model.generate(["w3", ""]), "the prompt of 1 has no tokens"),
        (lambda model: model.generate(["w3"], top_p=2), "top_p 2: give above 0, up to 1"),
    ],
)
def test_mistakes_are_reported_in_one_line(model, call, message):
    with pytest.raises(InputError) as caught:
        call(model)
    assert str(caught.value).startswith(message)


def test_invalid_models_and_options_are_refused(folders, tmp_path):
    with pytest.raises(InputError, match="backend 'abacus': give one of transformers, vllm"):
        OptimalSamplingModel(folders[0], backend="abacus")
    with pytest.raises(InputError, match="alpha_method magic: give one of"):
        OptimalSamplingModel(folders[0], alpha_method="magic")
    plain = make_model(tmp_path / "plain", tokenizer=make_tokenizer(template=None))
    with pytest.raises(InputError, match="has no chat template: give prompts as text"):
        OptimalSamplingModel(plain).generate([[{"role": "user", "content": "w3"}]])


def test_the_package_imports_no_torch():
    code = "import sys, rollmill.jobs.optimal_sampling; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
