"""Data sources of `--feed`: their parameters, and mistakes in one line."""

import json
from pathlib import Path

import pytest

from rollmill.config.command_line import parse_command_line
from rollmill.errors import InputError
from rollmill.jobs.improvement.data_sources import SOURCES, RoundContext, read_feeds, source_kind
from rollmill.jobs.improvement.parameters import Improve

SERVING = {"server_block": "here", "vllm_args": "--x", "log_dir": "logs", "no_canary": True}


def write(path, text):
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return str(path)


def context(**more):
    return RoundContext(**{"policy": "m", "folder": Path("r"), "seed": 2, "serving": SERVING, "slots": 64} | more)


@pytest.mark.parametrize("name", ["feed.yaml", "feed.json"])
def test_feed_file_and_policy_give_the_flow_parameters(tmp_path, name):
    options = {"dataset": "other.jsonl", "num-rollout": 16, "verifier": "math", "temperature": 1, "seed": 5}
    [feed] = read_feeds([f"reject-sampling={write(tmp_path / name, options)}"])
    assert (feed.name, feed.kind) == ("reject_sampling_1", "reject_sampling")
    planned = feed.plan(context())
    parameters = planned.parameters
    assert (parameters.model_path, parameters.model_name, parameters.output_dir) == (["m"], ["reject_sampling_1"], "r")
    assert (parameters.dataset, parameters.num_rollout, parameters.verifier, parameters.temperature) == (
        "other.jsonl",
        16,
        "math",
        1.0,
    )
    assert (parameters.seed, parameters.concurrent_problems) == (7, 4)
    assert (parameters.server_block, parameters.vllm_args, parameters.no_canary) == ("here", "--x", True)
    assert planned.inputs == ["r/reject_sampling_1"]
    assert planned.is_generated


def test_serving_settings_of_the_feed_file_win(tmp_path):
    text = "concurrency: 3\nvllm_args: --max-model-len=512\nsystem_prompt: be brief\nfew_shot: no.jsonl\n"
    [feed] = read_feeds([f"reject_sampling={write(tmp_path / 'f.yml', text)}"])
    planned = feed.plan(context())
    assert (planned.parameters.concurrent_problems, planned.parameters.vllm_args) == (3, "--max-model-len=512")
    assert planned.prompting.system_prompt == "be brief"
    assert planned.prompting.few_shot == ()  # nor is its file opened: training asks without


def test_agents_are_planned_at_a_policy(tmp_path):
    options = {"dataset": "problems.json", "samples-per-task": 4, "config": "mini_textbased.yaml", "seed": 5}
    options["gpu_workers"] = 2
    [feed] = read_feeds([f"agent-rollouts={write(tmp_path / 'feed.json', options)}"])
    planned = feed.plan(context())
    parameters = planned.parameters
    assert (parameters.model_path, parameters.output, parameters.num_rollout) == ("m", "r/agent_rollouts_1.json", 4)
    assert (parameters.seed, parameters.server_block, parameters.vllm_args, parameters.gpu_workers) == (
        7,
        "here",
        "--x",
        2,
    )
    assert planned.inputs == ["r/agent_rollouts_1.json"]
    assert planned.prompting is None  # rows keep the agent's own prompts
    assert planned.is_generated


def test_existing_data_is_not_generated(tmp_path):
    path = write(tmp_path / "rows.jsonl", "{}\n")
    feed = read_feeds([f"data={path}", f"data={path}"])[1]
    planned = feed.plan(context())
    assert (feed.name, planned.inputs, planned.prompting, planned.is_generated) == ("data_2", [path], None, False)


MISTAKES = [
    ("num_rollouts: 3\n", r"f\.yaml line 1: num_rollouts: no such parameter; did you mean num_rollout\?"),
    ("seed: 1\nqqq: 3\n", r"f\.yaml line 2: qqq: no such parameter$"),
    ("seed: 1\nmodel-path: m\n", r"f\.yaml line 2: model_path: is set by the loop; leave it out"),
    ("base_url: http://a\n", "base_url: is set by the loop"),
    ("adapter: a\n", "adapter: is set by the loop"),
    ("\n\nnum_rollout: 0\n", r"f\.yaml line 3: num_rollout: 0: Input should be greater than or equal to 1"),
    ("num_rollout: many\n", "line 1: num_rollout: 'many': Input should be a valid integer"),
    ('vllm_args: "\'"\n', "line 1: vllm_args: .*No closing quotation"),
    ("seed: 1\nseed: 2\n", "line 2: seed: is given twice"),
    ("- 1\n", "expected parameters"),
    ("", "expected parameters"),
    ("a: [1\n", r"f\.yaml line 2: not valid YAML"),
    ("a: 2026-13-45\n", "no such parameter|not valid YAML"),
    ("a: \x01\n", "not valid YAML in UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistake_in_a_feed_file_is_reported_with_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_feeds([f"reject_sampling={write(tmp_path / 'f.yaml', text)}"])
    assert str(caught.value).startswith("--feed reject_sampling: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("agents=f.yaml", r"--feed agents=f.yaml: give NAME=FILE: use agent_rollouts, data, reject_sampling; did you"),
        ("f.yaml", "give NAME=FILE"),
        ("reject_sampled=f", r"did you mean reject_sampling\?$"),
        ("data=", "--feed data=: give data=PATH$"),
        ("data=nowhere.json", "--feed data: nowhere.json: there is no such file or folder"),
        ("reject_sampling=nowhere.yaml", "--feed reject_sampling: cannot read nowhere.yaml: No such file"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line(flag, message):
    with pytest.raises(InputError, match=message):
        read_feeds([flag])


def test_mistakes_in_json_are_reported(tmp_path):
    with pytest.raises(InputError, match=r"f\.json: not valid JSON"):
        read_feeds([f"reject_sampling={write(tmp_path / 'f.json', '{')}"])
    with pytest.raises(InputError, match=r"f\.json: tempersture: no such parameter; did you mean temperature"):
        read_feeds([f"reject_sampling={write(tmp_path / 'f.json', {'tempersture': 1})}"])


def test_mistakes_are_reported_before_anything_starts(tmp_path, capsys):
    path = write(tmp_path / "f.yaml", "num_rollouts: 3\n")
    command = ["--model_path", "m", "--held_out", "h", "--feed", f"reject_sampling={path}"]
    with pytest.raises(SystemExit) as ended:
        parse_command_line(Improve, command, prog="improve", description="", examples="")
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message == (
        f"improve: --feed reject_sampling: {path} line 1: num_rollouts: no such parameter; did you mean num_rollout?\n"
    )


def test_a_data_set_or_feed_is_required(tmp_path):
    data = f"data={write(tmp_path / 'rows.jsonl', '{}')}"
    with pytest.raises(ValueError, match="--dataset: required where there is no --feed"):
        Improve(model_path="m", held_out="h")
    with pytest.raises(ValueError, match="--few_shot: goes with --dataset"):
        Improve(model_path="m", held_out="h", few_shot="f", feed=data)
    only = Improve(model_path="m", held_out="h", feed=data)
    assert [feed.name for feed in only.feeds] == ["data_1"]
    both = Improve(model_path="m", held_out="h", feed=data, dataset="d")
    assert [feed.name for feed in both.feeds] == ["rollouts", "data_1"]


def test_parameters_set_by_the_loop_exist_in_the_flow():
    for kind in map(source_kind, SOURCES):
        assert kind.set_by_loop - {"adapter"} <= set(kind.model.model_fields)


@pytest.mark.parametrize("text", ["verifier: evil:Verifier\n", "verifier: evil.Verifier\n", "{verifier: os.system}"])
def test_feed_file_cannot_name_code_to_import(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "evil.py", "open('pwned', 'w')\nclass Verifier: pass\n")
    path = write(tmp_path / "f.yaml", text)
    with pytest.raises(InputError, match=r"f\.yaml line 1: verifier: .*give your own as --verifier on the comm"):
        read_feeds([f"reject_sampling={path}"])
    assert not (tmp_path / "pwned").exists()
    [feed] = read_feeds([f"reject_sampling={write(tmp_path / 'own.yaml', 'verifier: mine:V')}"], verifier="mine:V")
    assert feed.settings == {"verifier": "mine:V"}
