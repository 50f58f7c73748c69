import pytest

from rollmill.errors import InputError
from rollmill.inference.generation_config import known_recommendation, recommended_sampling, sampling_notes

SAMPLED = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 64}


@pytest.fixture
def model(tmp_path):
    def model(text='{"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05}'):
        (tmp_path / "generation_config.json").write_text(text)
        return str(tmp_path)

    return model


def test_the_file_is_read(model):
    assert recommended_sampling(model()) == {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05}
    assert recommended_sampling(model('{"top_k": 0, "min_p": null, "do_sample": true}')) == {"top_k": -1}


def test_a_folder_without_the_file_recommends_nothing(tmp_path):
    assert recommended_sampling(str(tmp_path)) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"top_k": "20"}', '{"top_k": true}', '{"top_p": 1e999}', "x" * 2**21])
def test_a_file_that_is_none_is_refused_in_one_line(model, text):
    with pytest.raises(InputError, match=r"generation_config\.json"):
        recommended_sampling(model(text))


def test_a_name_that_only_a_server_knows(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"--sampling model: .* is not available here"):
        recommended_sampling("name with spaces")
    assert known_recommendation("name with spaces") is None
    assert sampling_notes(SAMPLED, "name with spaces", external=True) == []


def test_what_differs_and_what_vllm_adds_is_said(model):
    recommends, adds = sampling_notes(SAMPLED, model(), external=False)
    assert "recommends temperature 0.6, top_k 20, repetition_penalty 1.05" in recommends
    assert "vLLM samples with top_k 20, repetition_penalty 1.05" in adds


def test_nothing_is_said_where_all_is_sampled_as_recommended(model):
    sampled = SAMPLED | {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05}
    assert sampling_notes(sampled, model(), external=False) == []


def test_vllms_own_arguments_are_heeded(model):
    assert len(sampling_notes(SAMPLED, model(), external=False, vllm_args="--generation-config vllm")) == 1
    arguments = "--generation-config=vllm --override-generation-config '{\"min_p\": 0.1}'"
    _, adds = sampling_notes(SAMPLED, model(), external=False, vllm_args=arguments)
    assert "vLLM samples with min_p 0.1" in adds


def test_a_broken_file_ends_no_run_that_does_not_ask_for_it(model):
    [note] = sampling_notes(SAMPLED, model("{"), external=False)
    assert "is not a JSON object" in note


def test_of_running_servers_it_is_not_known(model):
    _, may = sampling_notes(SAMPLED, model(), external=True)
    assert "may add top_k 20" in may
