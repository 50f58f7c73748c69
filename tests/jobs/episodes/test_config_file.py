"""Settings from a file and from dotted overrides: their parameters, and the locations of mistakes."""

import json

import pytest

from rollmill.config.settings_file import read_settings_file
from rollmill.errors import InputError
from rollmill.jobs.episodes.config_file import merge_overlay, read_overlay
from rollmill.jobs.episodes.parameters import CollectEpisodes


def read_settings(tmp_path, text="", *overrides, environment=(), **flags):
    """The parameters that all of it comes to."""
    file = None
    if text:
        (tmp_path / "run.yaml").write_text(text)
        file = read_settings_file(str(tmp_path / "run.yaml"))
    values = merge_overlay(read_overlay(file, overrides), dict(environment), flags)
    return CollectEpisodes.model_validate({"model_path": "m"} | values)


def changed(item):
    """What is not as by default."""
    return {name: value for name, value in item if value != CollectEpisodes.model_fields[name].default}


SEED = """\
training:
  sft_num_episodes: 500
  only_success: false
  run_sft_training: true
  sft_data_dir: ./data
  sft_model_dir: ./model
  sft_config:
    model_name_or_path: org/base
    use_lora: true
    lora_r: 32
    learning_rate: 5e-5
    target_modules: [q_proj, v_proj]
env:
  name: math_env
  max_turns: 5
  dataset: chain_sum
"""


def test_names_of_pettingllms_are_accepted(tmp_path):
    item = read_settings(tmp_path, SEED)
    assert changed(item) == {
        "env_name": "math_env", "max_turns": 5, "env": ["dataset=chain_sum"], "model_path": "m", "total_rollouts": 500,
        "successful_only": False, "run_sft_training": True, "output_dir": "./data", "sft_model_dir": "./model",
        "sft_config": ["model_path=org/base", "use_lora=true", "lora_r=32", 'learning_rate="5e-5"',
                       'target_modules=["q_proj", "v_proj"]'],
    }  # fmt: skip
    training = item.training("x")
    assert (training.model_path, training.lora_r, training.learning_rate) == ("org/base", 32, 5e-5)
    assert training.target_modules == ["q_proj", "v_proj"]


def test_a_setting_has_several_dotted_names(tmp_path):
    for text in (
        "num_episodes: 7", "num-episodes: 7", "sampling: {num_episodes: 7}", "training: {sft_num_episodes: 7}",
        "total_rollouts: 7", "sampling: {total-rollouts: 7}",
        "training.sft_num_episodes: 7", '{"sampling": {"num-episodes": 7}}',
    ):  # fmt: skip
        assert changed(read_settings(tmp_path, text)) == {"model_path": "m", "total_rollouts": 7}, text
    for override in ("num_episodes=7", "+training.sft_num_episodes=7", "++sampling.num_episodes=7",
                     "training={sft_num_episodes: 7}"):  # fmt: skip
        assert changed(read_settings(tmp_path, "", override)) == {"model_path": "m", "total_rollouts": 7}, override


def test_overrides_flags_environment_and_file_in_order(tmp_path):
    text = (
        "num_episodes: 1\ntemperature: 0.1\ntop_p: 0.1\nmax_turns: 1\nenv: {a: 1, b: 1, c: 1}\nsft_config: {seed: 1}\n"
    )
    overrides = ["training.sft_num_episodes=2", "sampling.temperature=0.2", "env.b=2", "env.c=2"]
    environment = {"temperature": "0.9", "concurrency": "9", "top_p": "0.9"}
    item = read_settings(
        tmp_path,
        text,
        *overrides,
        environment=environment,
        total_rollouts="3",
        env=["c=3", "d=3"],
        sft_config=["lora_r=3"],
    )
    assert (item.total_rollouts, item.temperature, item.top_p, item.max_turns, item.concurrency) == (3, 0.2, 0.1, 1, 9)
    assert item.env_settings == {"a": 1, "b": 2, "c": 3, "d": 3}
    assert item.sft_config == ["seed=1", "lora_r=3"]


def test_an_environment_s_setting_may_be_a_mapping(tmp_path):
    assert read_settings(tmp_path, "env: {weights: {a: 1, b: {c: 2}}}").env_settings == {
        "weights": {"a": 1, "b": {"c": 2}}
    }


def test_lists_as_flags_have_them(tmp_path):
    text = "env: [size=3]\npolicy: ['small=s,base_url=http://a,base_url=http://b,top_p=1']\nagent: first=small\n"
    item = read_settings(tmp_path, text)
    assert (item.env, item.policy, item.agent) == (
        ["size=3"], ["small=s,base_url=http://a,base_url=http://b,top_p=1"], ["first=small"],
    )  # fmt: skip


@pytest.mark.parametrize("root", ["policies", "models", "base_models", "policy"])
def test_policies(tmp_path, root):
    text = (
        f"{root}:\n  small: {{path: org/s, adapter: lora, temperature: 0.3}}\n  big: org/b\nagents: {{first: small}}\n"
    )
    item = read_settings(
        tmp_path, text, f"{root}.big.top_p=0.5", f"{root}.far.model=m2", f"{root}.far.base_url=[http://a, http://b]"
    )
    assert item.policy == [
        "small=org/s,adapter=lora,temperature=0.3", "big=org/b,top_p=0.5", "far=m2,base_url=http://a,base_url=http://b",
    ]  # fmt: skip
    assert item.agent_policies == {"first": "small"}


def test_the_shared_policy_is_the_model_path(tmp_path):
    text = "models: {model_0: {path: org/a, name: shared_model}}\n"
    assert changed(read_settings(tmp_path, text)) == {"model_path": "org/a"}
    assert read_settings(tmp_path, text, model_path="flag").model_path == "flag"
    assert read_settings(tmp_path, text, environment={"model_path": "env"}).model_path == "org/a"
    tuned = read_settings(tmp_path, text, "models.model_0.temperature=0.1")
    assert (tuned.model_path, tuned.policy) == (None, ["shared_model=org/a,temperature=0.1"])
    tuned = read_settings(tmp_path, text, "models.model_0.temperature=0.1", model_path="flag")
    assert (tuned.model_path, tuned.policy) == (None, ["shared_model=flag,temperature=0.1"])
    tuned = read_settings(tmp_path, "", "policies.me.top_p=0.1", environment={"model_path": "env"}, model_name="me")
    assert (tuned.model_path, tuned.policy) == (None, ["me=env,top_p=0.1"])


PETTING = """\
defaults:
  - ../ppo_trainer@models.model_0.ppo_trainer_config: eval
  - _self_
specialization: "lora"
resource: {nnodes: 1, n_gpus_per_node: 8}
env: {name: math_env, max_turns: 5, resolve: false, multi_modal: false, batched_init: true}
base_models:
  policy_0: {path: "your path", name: shared_model}
  policy_1: {path: org/tool, name: tool_model}
agent_policy_configs:
  num_agents: 2
  policy_list: [reasoner, tool_user]
  agent_configs:
    agent_0: {name: reasoner, policy_name: shared_model, enable_thinking: false, train_temperature: 1.0}
    agent_1: {name: tool_user, policy_name: tool_model}
multi_agent_interaction: {turn_order: [tool_user, reasoner]}
training:
  device: cuda
  train_batch_size: 32
  sample_temperature: 0.5
  max_prompt_length: 4096
  max_response_length: 2048
  lora_rank: ${lora_rank}
models:
  model_0:
    path: ${base_models.policy_0.path}
    name: ${base_models.policy_0.name}
    ppo_trainer_config:
      actor_rollout_ref: {model: {path: "${base_models.policy_0.path}"}}
  model_1:
    path: ${base_models.policy_1.path}/v${training.max_response_length}
    name: tool_model
"""


def test_a_file_for_pettingllms(tmp_path):
    item = read_settings(tmp_path, PETTING, "base_models.policy_0.path=org/base")
    assert changed(item) == {
        "env_name": "math_env", "max_turns": 5, "model_path": "org/base", "policy": ["tool_model=org/tool/v2048"],
        "agent": ["reasoner=shared_model", "tool_user=tool_model"], "temperature": 0.5, "max_tokens": 2048,
    }  # fmt: skip
    passed = read_overlay(read_settings_file(str(tmp_path / "run.yaml")), ()).ignored
    assert "resource.n_gpus_per_node" in passed
    assert "training.lora_rank" in passed
    assert "models.model_0.ppo_trainer_config.actor_rollout_ref.model.path" in passed
    assert not any(name.startswith(("base_models", "env.name")) for name in passed)


@pytest.mark.parametrize(
    ("text", "override", "why"),
    [
        ("a: 1", "", "{} line 1: a: no such setting"),
        ("\ntraining:\n  sft_num_episode: 5\n", "",
         "{} line 3: training.sft_num_episode: no such setting; did you mean training.sft_num_episodes?"),
        ("", "sampling.tempreature=1",
         "sampling.tempreature=1: no such setting; did you mean sampling.temperature?"),
        ("", "rows.temperature=1", "rows.temperature=1: no such setting; did you mean temperature?"),
        ("training: {sft_num_episodes: abc}", "",
         "{} line 1: training.sft_num_episodes: 'abc': Input should be a valid integer, unable to parse string as an "
         "integer"),
        ("", "env.max_turns=0", "env.max_turns=0: 0: Input should be greater than or equal to 1"),
        ("policies:\n  a:\n    lora: x", "",
         "{} line 3: policies.a.lora: no such setting of a policy: there are path, model_path, model, name, adapter, "
         "base_url, temperature, top_p, max_tokens, top_k, min_p, presence_penalty, frequency_penalty, "
         "repetition_penalty, stop, reasoning_effort, chat_template_kwargs, extra_body"),
        ("policies:\n  a:\n    top_p: 1", "", "policy a: has no model: give its path, or leave it out"),
        ("model_path: ${nowhere}", "", "{} line 1: model_path: ${{nowhere}} names no setting that has a value"),
        ("model_path: ${model_path}", "", "{} line 1: model_path: ${{model_path}} names no setting that has a value"),
        ("env: 3", "", "{} line 1: env: 3 is no mapping: give KEY: VALUE"),
        ("env:\n  a: 1\n  b: 2\n  a: 3", "", "{} line 4: env.a: is given twice"),
        ("- a", "", "{}: expected parameters, as in `temperature: 0.7`, but there are none"),
        ("a: &a {b: *a}", "", "{}: a value contains itself through an alias: write it out"),
        ("a: [", "", "{} line 1: not valid YAML: expected the node content, but found '<stream end>'"),
        ("", "~env.a", "'~env.a' is no override: give NAME=VALUE, as in training.sft_num_episodes=500"),
        ("", "=3", "'=3' is no override: give NAME=VALUE, as in training.sft_num_episodes=500"),
        ("", "env.a=[", "env.a=[: '[' is no YAML value: put it in quotes"),
    ],
)  # fmt: skip
def test_mistakes_are_reported_with_their_location(tmp_path, text, override, why):
    with pytest.raises(InputError) as caught:
        read_settings(tmp_path, text, *([override] if override else []))
    assert str(caught.value) == why.format(tmp_path / "run.yaml")


def test_file_and_flags_are_validated_together(tmp_path):
    item = read_settings(tmp_path, "balance_success: true", only_success=False)
    assert item.balance_success


CODE_IN_VLLM = [
    "--trust-remote-code",
    "--trust_remote_code",
    "--trust",
    "--worker-cls evil.Worker",
    "--worker-extension-cls=evil.Extension",
    "--tool-parser-plugin /shared/evil.py",
    "--logits-processors evil:Processor",
    "--max-model-len 512 --kv-transfer-config '{}'",
    "--hf-overrides.architectures evil",
    "--distributed-executor-backend evil.Executor",
    "--config /shared/evil.yaml",
    "-O.backend=evil",
]


@pytest.mark.parametrize("arguments", CODE_IN_VLLM)
def test_a_file_cannot_set_options_that_run_code(tmp_path, arguments):
    with pytest.raises(InputError, match=r"line 1: vllm_args: .*give it as --vllm_args on the command line"):
        read_settings(tmp_path, f"vllm_args: {json.dumps(arguments)}")
    assert read_settings(tmp_path, "", f"vllm_args={json.dumps(arguments)}").vllm_args == arguments


def test_a_file_may_set_the_servers_size(tmp_path):
    line = "--max-model-len 512 --gpu_memory_utilization=0.5 --seed -1"
    assert read_settings(tmp_path, f"vllm_args: {line}").vllm_args == line


@pytest.mark.parametrize("name", ["evil:Environment", "evil.Environment", "os.system"])
def test_config_file_cannot_name_an_environment_to_import(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("open('pwned', 'w')\nclass Environment: pass\n")
    for text in (f"env_name: {name}", f"env:\n  name: {name}", f"x: {name}\nenv_name: ${{x}}"):
        with pytest.raises(InputError, match=r"no other code|no such setting"):
            read_settings(tmp_path, text)
    assert not (tmp_path / "pwned").exists()
    assert read_settings(tmp_path, "env_name: math_env").env_name == "math_env"
    assert read_settings(tmp_path, "env_name: math_env", f"env_name={name}").env_name == name


def test_values_of_flags_are_not_checked_as_the_files(tmp_path):
    (tmp_path / "run.yaml").write_text("env_name: mine:Environment\nvllm_args: --worker-cls mine.Worker")
    file = read_settings_file(str(tmp_path / "run.yaml"))
    assert read_overlay(file, (), typed={"env_name", "vllm_args"}).fields["env_name"] == "mine:Environment"


@pytest.mark.parametrize("text", ["${env.x}", "a ${env.x}"])
@pytest.mark.parametrize("named", ["a " * 45_000, ["a"] * 19_000])
def test_references_are_limited_in_length(tmp_path, named, text):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"env": {"x": named} | {f"k{n}": text for n in range(400)}}))
    with pytest.raises(InputError, match="more than 300,000 characters") as refused:
        read_overlay(read_settings_file(str(file)), ())
    assert str(refused.value).startswith(f"{file}: env.k")
    assert len(str(refused.value)) < 500
