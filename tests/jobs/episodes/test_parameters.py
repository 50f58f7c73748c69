"""Parameters of a collection, and mistakes in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rollmill.jobs.episodes.override_values import as_policies, as_text, read_value
from rollmill.jobs.episodes.parameters import CollectEpisodes


def make_parameters(**options):
    return CollectEpisodes.model_validate({"model_path": "org/m"} | options)


def refusal(**options):
    with pytest.raises(ValidationError) as caught:
        make_parameters(**options)
    [error] = caught.value.errors()
    return ": ".join([*map(str, error["loc"]), error["msg"].removeprefix("Value error, ")])


def test_defaults():
    item = make_parameters()
    assert (item.env_name, item.max_turns, item.total_rollouts, item.successful_only) == ("code_env", 3, 100, True)
    assert (item.temperature, item.max_tokens, item.concurrency) == (1.0, 1024, 64)
    assert (item.cluster_block, item.gpu_workers) == (None, None)
    assert (item.sandbox_kind, item.source, item.external, item.training("rows.jsonl")) == (
        "bubblewrap",
        None,
        False,
        None,
    )
    [policy] = item.policies
    assert (policy.name, policy.model, policy.adapter, policy.demonstration) == ("shared_model", "org/m", "", False)


def test_settings_are_taken_as_flags_and_as_mappings():
    flags = make_parameters(env=["size=3", "world=sokoban", "noise=null", "steps=[1, x]"])
    mapping = make_parameters(env={"size": 3, "world": "sokoban", "noise": None, "steps": [1, "x"]})
    assert flags.env_settings == mapping.env_settings == {
        "size": 3, "world": "sokoban", "noise": None, "steps": [1, "x"],
    }  # fmt: skip
    assert make_parameters(env={"answer": "yes"}).env_settings == {"answer": "yes"}  # and not True
    assert make_parameters(env="day=2024-01-31").env_settings == {"day": "2024-01-31"}
    assert make_parameters(agent={"first": "shared_model"}).agent_policies == {"first": "shared_model"}


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc=", max_size=3), inner, max_size=3)
)


@given(VALUES)
def test_a_value_is_read_back_from_its_text(value):
    assert read_value(as_text(value)) == value
    assert CollectEpisodes.model_validate({"model_path": "m", "env": {"key": value}}).env_settings == {"key": value}


def test_policies(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    urls = ",base_url=http://a:8000,base_url=https://b/v1/"
    item = make_parameters(policy=["small=~/a,b,adapter=~/c=d,temperature=0.7", f"big=m{urls},max_tokens=9"], top_p=0.9)
    custom, small, big = item.policies
    assert (custom.sampling.temperature, custom.sampling.top_p) == (1.0, 0.9)
    assert (small.model, small.adapter, small.base_urls) == ("/home/me/a,b", "/home/me/c=d", ())
    assert (small.sampling.temperature, small.sampling.top_p, small.sampling.max_tokens) == (0.7, 0.9, 1024)
    assert (big.base_urls, big.sampling.max_tokens) == (("http://a:8000/v1", "https://b/v1"), 9)
    mapping = {
        "small": {"model": "~/a,b", "adapter": "~/c=d", "temperature": 0.7},
        "big": {"model": "m", "base_url": ["http://a:8000", "https://b/v1/"], "max_tokens": 9},
    }
    assert make_parameters(policy=mapping, top_p=0.9).policies == item.policies
    assert as_policies({"a": "m"}) == ["a=m"]
    policies = make_parameters(model_path="oracle", policy=["x=random", "y=./oracle"]).policies
    assert [spec.demonstration for spec in policies] == [True, True, False]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model_path": None},
         "--model_path: required: the policy of the agents; or --policy (or set MODEL_PATH in the environment)"),
        ({"env": ["size"]}, "--env: 'size' is not KEY=VALUE"),
        ({"env": ["a=1", "a=2"]}, "--env: 'a' is given twice"),
        ({"env": ["a=[1"]}, "--env: '[1' is no YAML value: put it in quotes"),
        ({"agent": ["first"]}, "--agent: 'first' is not KEY=VALUE"),
        ({"policy": ["m"]}, "--policy: 'm' is not NAME=MODEL"),
        ({"policy": ["a=,adapter=b"]}, "--policy: 'a=,adapter=b' is not NAME=MODEL"),
        ({"policy": ["a b=m"]},
         "--policy: 'a b' cannot be a policy's name: use letters, digits, '_', '-', '.' and '/'"),
        ({"policy": ["a=m,temprature=1"]}, "--policy: a: there is no 'temprature'; did you mean temperature?"),
        ({"policy": ["a=m,top_p=1,top_p=1"]}, "--policy: a: 'top_p' is given twice"),
        ({"policy": ["a=m,top_p=2"]}, "--policy: a: top_p: '2': Input should be less than or equal to 1"),
        ({"policy": ["a=oracle,top_p=1"]}, "--policy: a: oracle is no model: it takes no top_p"),
        ({"policy": ["a=m,base_url=host:80"]}, "--policy: 'host:80' does not start with http:// or https://"),
        ({"policy": ["a=m,adapter=b,base_url=http://h"]},
         "--policy: a: running servers decide what they serve: leave out adapter, and give the name under which they "
         "serve it as MODEL"),
        ({"policy": ["shared_model=m"]},
         "--policy: there are two policies 'shared_model': give each another name"),
        ({"policy": {"a": {"adapter": "x"}}}, "policy: a: has no model"),
        ({"model_name": "a="},
         "model_name: 'a=' cannot be a policy's name: use letters, digits, '_', '-', '.' and '/'"),
        ({"balance_success": True},
         "--balance_success: there are no failed episodes to keep: add --no_successful_only"),
        ({"base_url": ["http://a"], "endpoint_block": "b"}, "give --base_url or --endpoint_block, not both"),
        ({"cluster_block": "c", "gpu_workers": 2},
         "give --cluster_block or --gpu_workers, not both: a cluster has its own workers"),
        ({"gpu_workers": 2, "model_port": 8000},
         "--model_port 8000: there are 2 servers with --gpu_workers: leave it out, and each takes a free port"),
        ({"search_server": "h:1", "search_block": "b"}, "give --search_server or --search_block, not both"),
        ({"docker_server": "h:1"},
         "--sandbox_image: required with --sandbox remote: a Docker image with python3"),
        ({"sandbox": "docker", "docker_server": "h:1", "sandbox_image": "x"},
         "--sandbox docker is here: leave out --sandbox_server and --sandbox_block"),
        ({"sandbox": "remote", "sandbox_image": "x"}, "--sandbox remote needs --sandbox_server or --sandbox_block"),
        ({"sandbox_image": "x"}, "--sandbox_image: bubblewrap takes none: leave it out, or use --sandbox docker"),
        ({"sft_config": ["lora_s=1"]}, "--sft_config: there is no 'lora_s'; did you mean lora_r?"),
        ({"sft_config": ["lora_r=0"]}, "--sft_config: lora_r: 0: Input should be greater than or equal to 1"),
        ({"sft_config": ["merge=true", "use_lora=false"]},
         "--sft_config: --merge has nothing to merge without --use_lora"),
        ({"sft_config": ["train_data=x"]}, "--sft_config: there is no 'train_data'; did you mean validation_data?"),
        ({"model_path": "oracle", "run_sft_training": True},
         "--run_sft_training: there is no model to train: give a directory or hub id as --model_path, or as "
         "--sft_config model_path=PATH"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(options, why):
    assert refusal(**options) == why


def test_parameters_of_the_training():
    flags = ["num_train_epochs=1", "learning_rate=5e-5", "lora_r=32", "target_modules=[q_proj, v_proj]"]
    item = make_parameters(run_sft_training=True, sft_config=flags, sft_model_dir="out")
    training = item.training("rows.jsonl")
    assert (training.model_path, training.train_data, training.output_dir) == ("org/m", ["rows.jsonl"], "out")
    assert (training.num_train_epochs, training.learning_rate, training.lora_r) == (1, 5e-5, 32)
    assert training.target_modules == ["q_proj", "v_proj"]
    played = make_parameters(
        model_path="oracle", run_sft_training=True, sft_config={"model_path": "org/other", "merge": True}
    )
    assert (played.training("x").model_path, played.training("x").merge) == ("org/other", True)
    several = make_parameters(model_path="oracle", policy=["a=org/a", "b=org/b"], run_sft_training=True)
    assert several.training("x").model_path == "org/a"


def test_stored_parameters_are_read_again():
    item = make_parameters(
        env={"a": [1]}, policy={"b": {"model": "m", "top_p": 0.5}}, sft_config={"lora_r": 8}, agent={"x": "b"}
    )
    assert CollectEpisodes.model_validate(item.model_dump()) == item
    assert CollectEpisodes.model_validate_json(item.model_dump_json()) == item
