"""The flags of sampling in every job that asks a server."""

import orjson
import pytest

from rollmill.errors import InputError
from rollmill.generation.sampling import OPTIONAL_FIELDS
from rollmill.jobs.agent_rollouts.job import AgentRolloutsJob
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.episodes.config_file import merge_overlay, read_overlay
from rollmill.jobs.episodes.job import EpisodesJob
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.rejection_sampling.job import jobs
from rollmill.jobs.rejection_sampling.parameters import RejectSampling

SAMPLING_FLAGS = {
    "top_k": 20,
    "min_p": 0.05,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "repetition_penalty": 1.1,
    "stop": ["END"],
    "reasoning_effort": "low",
    "chat_template_kwargs": {"enable_thinking": True},
    "extra_body": {"min_tokens": 8},
}
TOY = "tests.jobs.episodes.toy:ToyEnvironment"


def reject_sampling(**flags):
    [job] = jobs(RejectSampling.model_validate({"model_path": "m", "model_name": "n"} | flags))
    return job.sampling


def agent_rollouts(**flags):
    defaults = {"model_path": "m", "dataset": "d.json", "output": "o.json"}
    return AgentRolloutsJob.of(AgentRollouts.model_validate(defaults | flags)).sampling


def episodes(**flags):
    defaults = {"model_path": "m", "env_name": TOY}
    return EpisodesJob.of(CollectEpisodes.model_validate(defaults | flags)).policies[0].sampling


def training(**flags):
    defaults = {"model_path": "m", "train_data": ["t.jsonl"], "output_dir": "o", "held_out": "h.jsonl"}
    [job] = jobs(TrainAndEvaluate.model_validate(defaults | flags).before())
    return job.sampling


def loop(**flags):
    defaults = {"model_path": "m", "dataset": "d.jsonl", "held_out": "h.jsonl"}
    [source] = Improve.model_validate(defaults | flags).plan_sources(1, "m")
    [job] = jobs(source.parameters)
    return job.sampling


MODELS = [reject_sampling, agent_rollouts, episodes, training, loop]


@pytest.mark.parametrize("sampling_of", MODELS)
def test_flags_are_sent_in_requests(sampling_of):
    assert set(SAMPLING_FLAGS) == set(OPTIONAL_FIELDS)
    fields = orjson.loads(orjson.dumps(sampling_of(**SAMPLING_FLAGS).request_fields()))
    expected = {name: value for name, value in SAMPLING_FLAGS.items() if name != "extra_body"} | {"min_tokens": 8}
    assert {name: fields.get(name) for name in expected} == expected


@pytest.mark.parametrize("sampling_of", MODELS)
def test_at_the_defaults_nothing_more_is_sent_or_identifies(sampling_of):
    assert set(sampling_of().request_fields()) == {"temperature", "top_p", "max_tokens"}
    assert set(sampling_of().model_dump()) == {"temperature", "top_p", "max_tokens", "seed"}


@pytest.mark.parametrize("sampling_of", MODELS)
def test_recommended_sampling_is_used(sampling_of, tmp_path):
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20, "top_p": 0.95}')
    sampling = sampling_of(model_path=str(tmp_path), sampling="model", top_k=5)
    evaluates = sampling_of is training  # by a temperature of its own
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.0 if evaluates else 0.6, 0.95, 5)


def test_the_loop_keeps_its_temperature_where_the_model_recommends_none(tmp_path):
    assert loop(model_path=str(tmp_path), sampling="model").temperature == 0.8


@pytest.mark.parametrize("sampling_of", MODELS)
def test_a_model_whose_files_are_elsewhere_is_refused(sampling_of, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="is not available here"):
        sampling_of(model_path="only a server knows", sampling="model")


def test_agent_configuration_applies_without_flags(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"top_k": 20, "min_p": 0.1}')
    (tmp_path / "agent.yaml").write_text(
        "agent: {system_template: s, instance_template: i}\nmodel: {model_kwargs: {top_k: 7, stop: [x]}}\n"
    )
    parameters = AgentRollouts(
        model_path=str(tmp_path), dataset="d.json", output="o.json", config=str(tmp_path / "agent.yaml"),
        sampling="model", stop=["y"],
    )  # fmt: skip
    request = AgentRolloutsJob.of(parameters).settings.request
    assert {name: request[name] for name in ("top_k", "min_p", "stop")} == {"top_k": 7, "min_p": 0.1, "stop": ("y",)}


def test_agent_refuses_tools_in_extra_body():
    with pytest.raises(ValueError, match="--extra_body: tools: an agent's one tool is its shell"):
        agent_rollouts(extra_body={"tools": []})


def test_a_policys_own_sampling(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"top_k": 20, "min_p": 0.1}')
    text = f'a={tmp_path},top_k=3,stop=END,chat_template_kwargs={{"x": 1, "y": [2]}}'
    parameters = CollectEpisodes(env_name=TOY, policy=[text], sampling="model", reasoning_effort="low")
    [policy] = EpisodesJob.of(parameters).policies
    assert (policy.sampling.top_k, policy.sampling.min_p, policy.sampling.stop) == (3, 0.1, ("END",))
    assert policy.sampling.chat_template_kwargs == {"x": 1, "y": [2]}
    assert policy.sampling.reasoning_effort == "low"


SETTINGS = {
    "model_path": "m",
    "sampling": {"top_k": 9},
    "chat_template_kwargs": {"enable_thinking": False},
    "policies": {"a": {"model": "b", "extra_body": {"min_tokens": 1}, "stop": ["x", "y"], "top_k": 4}},
}


def test_objects_in_a_file_of_settings():
    lines = [f"{name}={orjson.dumps(value).decode()}" for name, value in SETTINGS.items()]
    values = merge_overlay(read_overlay(None, lines), {}, {})
    parameters = CollectEpisodes.model_validate(values)
    first, second = parameters.policies
    assert first.sampling.chat_template_kwargs == second.sampling.chat_template_kwargs == {"enable_thinking": False}
    assert (first.sampling.top_k, second.sampling.top_k, second.sampling.stop) == (9, 4, ("x", "y"))
    assert second.sampling.extra_body == {"min_tokens": 1}


@pytest.mark.parametrize("name", sorted({*OPTIONAL_FIELDS, "sampling"} - {"top_k"}))
def test_q_star_refuses_by_name(name):
    with pytest.raises(ValueError, match=f"--{name}: q\\* is drawn token by token"):
        OptimalSampling(model_theta="a", dataset="d", output="o.jsonl", **{name: SAMPLING_FLAGS.get(name, "model")})
