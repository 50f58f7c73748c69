import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jinja2 import StrictUndefined, Template

from rollmill.agents.config import read_agent_config
from rollmill.agents.settings import OBSERVATION, STEPS_FOR_COSTS, TEXT_REGEX, TOOL_ERROR, V1_REGEX
from rollmill.errors import InputError

V1 = r"""
agent:
  system_template: |
    Your response must contain exactly ONE bash code block with ONE command.
    ```bash
    your_command_here
    ```
  instance_template: |
    Please solve this issue: {{task}} on {{system}} {{release}} {{version}} {{machine}} {{processor}}
  action_observation_template: "<returncode>{{output.returncode}}</returncode>{{output.output}}"
  timeout_template: "<command>{{action['action']}}</command> timed out.\n<output>{{output}}</output>"
  format_error_template: "EXACTLY ONE action, found {{actions|length}}."
  max_observation_tokens: 1000
  step_limit: 15.
  cost_limit: 3.0
  mode: yolo
environment:
  cwd: "/app/rocm-libraries/projects/rocprim"
  timeout: 60
  env:
    PAGER: cat
  environment_class: docker_remote
model:
  model_name: Qwen/Qwen3-8B
  model_kwargs:
    temperature: 0.0
    drop_params: true
"""
SEED = """
agent:
  system_template: |
    You are a helpful assistant...
  instance_template: |
    Please solve this issue: {{task}}...
  step_limit: 0
  cost_limit: 3.0
environment:
  cwd: "/app/rocm-libraries/projects/rocprim"
  timeout: 60
  environment_class: docker_remote
model:
  model_kwargs:
    temperature: 0.0
    drop_params: true
"""
LEAST = {"agent": {"system_template": "s", "instance_template": "{{task}}", "cost_limit": 0}}


@pytest.fixture
def read(tmp_path, caplog):
    def read(content, **settings):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        with caplog.at_level(logging.WARNING):
            return read_agent_config(str(path), **settings), [record.getMessage() for record in caplog.records]

    return read


def changed(section, **keys):
    return LEAST | {section: LEAST.get(section, {}) | keys}


def render(template, **variables):
    return Template(template, undefined=StrictUndefined).render(variables)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("mini", "tools"),
        ("mini.yaml", "tools"),
        ("mini_textbased", "text"),
        ("default", "text"),
        ("swebench", "tools"),
        ("swebench_backticks", "text"),
        ("swebench_xml", "text"),
    ],
)
def test_packaged_configurations_are_read_unchanged(name, mode, caplog):
    settings = read_agent_config(name)
    assert settings.mode == mode
    assert settings.step_limit == (0 if name == "default" else STEPS_FOR_COSTS)
    assert "{{task}}" in settings.instance_template
    assert not caplog.records
    assert settings.observation_template != OBSERVATION


def test_version_1_file_is_mapped_with_a_warning_per_key(read):
    settings, messages = read(V1)
    assert settings.model_dump(exclude={"system_template", "instance_template", "observation_template"}) == {
        "mode": "text",
        "format_error_template": "EXACTLY ONE action, found {{actions|length}}.",
        "action_regex": V1_REGEX,
        "step_limit": 15,
        "wall_time_limit_s": 0,
        "max_consecutive_format_errors": 3,
        "cwd": "/app/rocm-libraries/projects/rocprim",
        "env": {"PAGER": "cat"},
        "timeout_s": 60.0,
        "start_config": {},
        "model_name": "Qwen/Qwen3-8B",
        "request": {"temperature": 0.0},
    }
    assert [line.split(" ")[:2] for line in messages] == [
        ["mine.yaml:", f"{key}"]
        for key in (
            "agent.action_observation_template",
            "agent.format_error_template",
            "agent.timeout_template",
            "agent.cost_limit",
            "agent.max_observation_tokens",
            "agent.mode",
            "environment.environment_class",
        )
    ]
    assert (
        messages[0]
        == "mine.yaml: agent.action_observation_template is of version 1: read as model.observation_template"
    )
    assert messages[4] == "mine.yaml: agent.max_observation_tokens is unknown, and not used"


def test_observations_of_a_version_1_file(read):
    template = read(V1)[0].observation_template
    done = {"output": "out", "returncode": 3, "exception_info": ""}
    assert render(template, output=done) == "<returncode>3</returncode>out"
    killed = done | {"exception_info": "out of memory"}
    assert render(template, output=killed) == "out of memory\n<returncode>3</returncode>out"
    late = done | {"exception_info": "late", "timed_out": "sleep 9"}
    assert render(template, output=late) == "<command>sleep 9</command> timed out.\n<output>out</output>"


def test_configuration_of_an_existing_project(read):
    settings, messages = read(SEED)
    assert (settings.mode, settings.step_limit, settings.timeout_s) == ("text", STEPS_FOR_COSTS, 60)
    assert settings.request == {"temperature": 0.0}
    assert messages == [
        "mine.yaml: agent.cost_limit is not used: endpoints here have no prices; step_limit is 250 instead",
        "mine.yaml: environment.environment_class is not used: sandboxes are chosen where the run is started",
    ]


@pytest.mark.parametrize(
    ("limits", "steps", "warned"),
    [
        ({"cost_limit": 0, "step_limit": 0}, 0, 1),
        ({"cost_limit": 0}, 0, 1),
        ({"cost_limit": 1.5, "step_limit": 7}, 7, 1),
        ({"step_limit": 7}, 7, 0),
        ({"step_limit": 0}, STEPS_FOR_COSTS, 1),
        ({}, STEPS_FOR_COSTS, 1),
    ],
)
def test_cost_limit_becomes_a_step_limit(read, limits, steps, warned):
    settings, messages = read({"agent": {"system_template": "s", "instance_template": "i"} | limits})
    assert (settings.step_limit, len(messages)) == (steps, warned)


@pytest.mark.parametrize(
    ("section", "keys", "mode", "regex"),
    [
        ("agent", {}, "tools", TEXT_REGEX),
        ("model", {"action_regex": "<do>(.*?)</do>"}, "text", "<do>(.*?)</do>"),
        ("agent", {"action_regex": "<do>(.*?)</do>"}, "text", "<do>(.*?)</do>"),
        ("model", {"model_class": "litellm_textbased"}, "text", TEXT_REGEX),
        ("model", {"model_class": "litellm"}, "tools", TEXT_REGEX),
        ("agent", {"system_template": "```mswea_bash_command\nls\n```"}, "text", TEXT_REGEX),
        ("agent", {"system_template": "exactly ONE bash code block\n```bash\nls\n```"}, "text", V1_REGEX),
        ("agent", {"system_template": "use the bash tool, not one code block\n```bash\nls\n```"}, "tools", TEXT_REGEX),
        ("agent", {"action_observation_template": "{{output.output}}"}, "text", V1_REGEX),
        ("agent", {"timeout_template": "{{action}}", "system_template": "```mswea_bash_command"}, "text", TEXT_REGEX),
        ("environment", {"environment_class": "docker"}, "tools", TEXT_REGEX),
    ],
)
def test_mode_is_inferred_from_the_file(read, section, keys, mode, regex):
    settings, _ = read(changed(section, **keys))
    assert (settings.mode, settings.action_regex) == (mode, regex)


def test_mode_can_be_overridden(read):
    assert read(LEAST, mode="text")[0].mode == "text"
    assert read(V1, mode="tools")[0].mode == "tools"
    assert read(LEAST)[0].format_error_template == TOOL_ERROR


def test_supported_model_kwargs_are_sent(read):
    arguments = {
        "temperature": 0.5, "max_tokens": 9, "seed": 3, "api_key": "sk-secret", "api_base": "http://there", "odd": 1,
        "extra_body": {"top_k": 20, "model": "other"}, "drop_params": True,
    }  # fmt: skip
    settings, messages = read(changed("model", model_kwargs=arguments))
    assert settings.request == {"temperature": 0.5, "max_tokens": 9, "top_k": 20}
    named = [line.split(" ")[1].removeprefix("model.model_kwargs.") for line in messages[1:]]
    assert sorted(named) == ["api_base", "api_key", "extra_body.model", "odd", "seed"]
    assert "sk-secret" not in f"{messages}{settings}"


def test_container_options_become_the_start_config(read):
    settings, messages = read(changed("environment", run_args=["--rm"], pull_timeout=9, image="i", timeout=5))
    assert (settings.start_config, settings.timeout_s) == ({"run_args": ["--rm"], "pull_timeout": 9}, 5)
    assert [line.split(" ")[1] for line in messages[1:]] == [
        f"environment.{key}" for key in ("run_args", "pull_timeout", "image")
    ]


def test_overrides(read):
    settings, _ = read(changed("model", model_kwargs={"temperature": 0.0, "max_completion_tokens": 5}))
    assert settings.with_overrides() == settings
    overridden = settings.with_overrides({"temperature": 0.7, "max_tokens": 8000}, step_limit=4, wall_time_limit_s=60)
    assert overridden.request == {"temperature": 0.7, "max_tokens": 8000}
    assert (overridden.step_limit, overridden.wall_time_limit_s, overridden.timeout_s) == (4, 60, settings.timeout_s)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("agent: [", "is no YAML"),
        ("- 1", "holds no sections"),
        ("agent: 3", "agent is a int"),
        ({"model": {}}, "agent.system_template: Field required"),
        (changed("agent", step_limit="many"), "agent.step_limit ('many'): Input should be a valid integer"),
        (changed("agent", step_limit=-1), "agent.step_limit (-1)"),
        (changed("environment", timeout=0), "environment.timeout (0): Input should be greater than 0"),
        (changed("environment", env={"A": 1}), "environment.env.A (1)"),
        (changed("agent", wall_time_limit_seconds=1.5), "agent.wall_time_limit_seconds (1.5)"),
        (changed("model", observation_template=3), "model.observation_template (3)"),
        (changed("agent", action_observation_template=3), "model.observation_template (3)"),
        (changed("agent", timeout_template=3), "model.observation_template (3)"),
        (
            changed("agent", system_template="a\n{% if %}"),
            "agent.system_template, line 2 of it: Expected an expression",
        ),
        (changed("model", action_regex="("), "model.action_regex is no regular expression"),
        (changed("model", action_regex="(a)(b)"), "model.action_regex has 2 groups"),
        (changed("model", model_kwargs=[1]), "model.model_kwargs is a list"),
        (changed("agent", agent_class="my.Agent"), "agent.agent_class is my.Agent"),
    ],
)
def test_mistakes_are_reported_with_file_and_key(read, content, words):
    with pytest.raises(InputError) as error:
        read(content)
    assert words in str(error.value)
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_configuration_names_the_known_ones():
    with pytest.raises(InputError, match=r"--config nowhere: no such file, and none of .*mini, mini_textbased"):
        read_agent_config("nowhere")


def test_import_prints_nothing_and_creates_no_folder(tmp_path):
    code = (
        "import sys, rollmill.agents.config as c; c.read_agent_config('mini');"
        "assert 'minisweagent' not in sys.modules;"
        "import rollmill.agents.playing, os; assert 'MSWEA_SILENT_STARTUP' not in os.environ;"
        "assert not {'litellm', 'openai', 'textual', 'torch', 'prefect'} & sys.modules.keys()"
    )
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "MSWEA_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
