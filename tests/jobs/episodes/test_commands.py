"""The command line: flags, a file, and overrides between them; mistakes in one line."""

import os

import pytest

from rollmill.jobs.episodes.commands import parse
from rollmill.jobs.episodes.parameters import CollectEpisodes


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in ("MODEL_PATH", "TEMPERATURE", "CONCURRENCY", "MAX_DATA", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def parse_flags(*argv):
    return parse(argv, description="Collects.", examples="  none")


def test_flags_and_overrides_in_any_order():
    item = parse_flags(
        "training.sft_num_episodes=500", "--env", "size=3", "world=sokoban", "env.max_turns=5", "--only_success",
        "+training.run_sft_training=False", "--sft-config", "lora_r=8", "training.sft_config.lora_alpha=32",
        "--model-path", "some=path", "sampling.top_p=0.5", "--output_dir", "training.x=1", "--seed=3", "concurrency=9",
    )  # fmt: skip
    assert type(item) is CollectEpisodes
    assert (item.total_rollouts, item.max_turns, item.top_p, item.seed, item.concurrency) == (500, 5, 0.5, 3, 9)
    assert item.env == ["size=3", "world=sokoban"]
    assert item.sft_config == ["lora_alpha=32", "lora_r=8"]
    assert (item.model_path, item.output_dir, item.run_sft_training) == ("some=path", "training.x=1", False)


def test_a_file_by_path_or_by_hydras_flags(tmp_path, monkeypatch):
    (tmp_path / "code.yaml").write_text("env: {name: code_env, max_turns: 2}\nmodel_path: org/m\n")
    monkeypatch.chdir(tmp_path)
    for flags in (
        ["--config", "code.yaml"], ["--config-path", str(tmp_path), "--config-name", "code"],
        ["--config_name=code.yaml"], ["--config_path=.", "--config-name=code"],
    ):  # fmt: skip
        item = parse_flags(*flags, "env.max_turns=4", "--num_episodes", "2")
        assert (item.max_turns, item.model_path, item.total_rollouts) == (4, "org/m", 2)


def test_the_file_wins_over_environment_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_PATH", "org/env")
    monkeypatch.setenv("CONCURRENCY", "7")
    (tmp_path / "a.yaml").write_text("concurrency: 8\n")
    assert (parse_flags().model_path, parse_flags().concurrency) == ("org/env", 7)
    assert parse_flags("--config", str(tmp_path / "a.yaml")).concurrency == 8
    assert parse_flags("--config", str(tmp_path / "a.yaml"), "--concurrency", "9").concurrency == 9


def test_ignored_keys_are_reported(tmp_path, capsys):
    names = ["device: cuda", "val_freq: 10", "logger: [console]", "resample_freq: 3", "project_name: x"]
    text = "training:\n" + "".join(f"  {name}\n" for name in names)
    (tmp_path / "a.yaml").write_text(f"{text}resource: {{nnodes: 1, n_gpus_per_node: 8}}\n")
    parse_flags("--model_path", "m", "--config", str(tmp_path / "a.yaml"))
    assert capsys.readouterr().err == (
        "collect_episodes: ignored settings of reinforcement learning: training.device, training.val_freq, "
        "training.logger, training.resample_freq, training.project_name, resource.nnodes and 1 more\n"
    )


def test_an_api_key_is_not_a_parameter(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "before")
    item = parse_flags("--model_path", "m", "--api-key", "sk-secret")
    assert os.environ["VLLM_API_KEY"] == "sk-secret"
    assert "sk-secret" not in item.model_dump_json()


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([], "--model_path: required: the policy of the agents; or --policy (or set MODEL_PATH in the environment)"),
        (["--model_path", "m", "stray"], "'stray' follows no flag that takes a value; see --help"),
        (["--model_path", "m", "--num_episode", "1"], "--num_episode: unknown flag; did you mean --num_episodes?"),
        (["--model_path", "m", "--num_episodes", "0"], "--num_episodes: 0 is too small: must be at least 1"),
        (["--model_path", "m", "training.sft_num_episode=1"],
         "training.sft_num_episode=1: no such setting; did you mean training.sft_num_episodes?"),
        (["--model_path", "m", "--env", "a=1", "env.max_turns=0"],
         "env.max_turns=0: 0: Input should be greater than or equal to 1"),
        (["--model_path", "m", "--env", "size"], "--env: 'size' is not KEY=VALUE"),
        (["--model_path", "m", "~env.a"],
         "'~env.a' is no override: give NAME=VALUE, as in training.sft_num_episodes=500"),
        (["--config", "no/file.yaml"], "cannot read no/file.yaml: No such file or directory"),
        (["--config-path", "no", "--config-name", "file"], "cannot read no/file.yaml: No such file or directory"),
        (["--config", "a", "--config-name", "b"], "give --config or --config_name, not both"),
        (["--model_path", "m", "training.sft_config.lora_s=1"],
         "--sft_config: there is no 'lora_s'; did you mean lora_r?"),
        (["--model_path", "m", "models.b.temperature=1"], "policy b: has no model: give its path, or leave it out"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(argv, why, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_flags(*argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"collect_episodes: {why}\n"


def test_help_describes_overrides(capsys):
    with pytest.raises(SystemExit):
        parse_flags("--help")
    message = " ".join(capsys.readouterr().out.split())
    assert "Dotted names, also without the flag: training.sft_num_episodes=500" in message
    assert "--config FILE.yaml YAML file of settings" in message
