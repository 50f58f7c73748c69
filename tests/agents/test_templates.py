import json
import os
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
from jinja2 import StrictUndefined

from rollmill.agents import mini_swe, template_meter
from rollmill.agents.config import read_agent_config
from rollmill.agents.templates import AgentTemplate, TemplateFailedError
from rollmill.errors import InputError
from rollmill.inference.scripted import Conversation, Script, ScriptedServer
from tests.agents import hostile_templates
from tests.agents.scripted_agents import SUBMIT, ShellSandbox, bash, play_on, text_settings

TOUCH = "cycler.__init__.__globals__.os.system('touch pwned')"
WRITTEN = [
    "{% if output.output | length < 10000 -%}{{ output.output }}{%- else -%}{{ output.output[:5000] }}{%- endif %}",
    "{%- set elided = output.output | length - 10000 -%}{{ elided }}",
    "{{ output.output | tojson }}{{ output | tojson(indent=2) }}",
    "{% for line in output.output.splitlines() %}{{ loop.index }}/{{ loop.length }}: {{ line }}\n{% endfor %}",
    "{% for name, value in output.items() %}{{ name }}={{ value }};{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "{% macro twice(text) %}{{ text }}{{ text }}{% endmacro %}{{ twice('ab') | upper }}",
    "{% filter upper %}{{ output.output }}{% endfilter %}",
    "{% for row in [[1, [2]], [3, []]] recursive %}{{ row }}"
    "{% if row is iterable %}{{ loop(row) }}{% endif %}{% endfor %}",
    "{{ ((600 - 20) / 60) | int }} {{ '%.2f' | format(1 / 3) }} {{ '%s!' % 'a' }}",
    "{{ 7 is odd }} {{ 8 is divisibleby 4 }}",
    "{{ ['b', 'a'] | sort | join(', ') }} {{ [1, 2] | sum }} {{ 'a b'.split() | map('upper') | list }}",
    "{{ output.nothing is defined }} {{ output.nothing | default('none') }} {{ 'a' in output.output }} {{ none }}",
    "{% for a, b in [(1, 2)] %}{{ a ~ b ~ 'c' }}{% else %}none{% endfor %} {{ cycler('a', 'b').next() }} {{ -3 ** 2 }}",
    "{% raw %}{{ x }}{% endraw %}{# comment #} {{ 'abc'.replace('b', 'B').upper().find('B') }} {{ 'x' * 3 }}\n\n",
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Render the hostile templates in a bounded process; return the results, and check that no file appears."""
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, "-m", "tests.agents.hostile_templates"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(folder.iterdir()) == []
    return dict(zip(hostile_templates.ALL, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("template", hostile_templates.ALL, ids=lambda text: text[:60])
def test_a_hostile_template_is_refused_in_a_bounded_process(outcomes, template):
    kind, what = outcomes[template]
    assert kind in ("TemplateFailedError", "TemplateSyntaxError"), what
    assert len(what) < 400


@pytest.mark.parametrize("template", WRITTEN)
def test_ordinary_templates_render_as_in_jinja(template):
    output = {"output": "one\ntwo & <three>\n" * 3, "returncode": 0}
    expected = jinja2.Template(template, undefined=StrictUndefined).render(output=output)
    assert AgentTemplate(template).render(output=output) == expected


def test_usual_templates_render_long_output():
    text = "x" * 2_000_000
    assert len(AgentTemplate(WRITTEN[0]).render(output={"output": text})) == 5000


def test_usual_methods_of_a_long_output_are_within_the_budget():
    text = "one two\n" * 100_000
    template = "{{ out.strip().rsplit('\n', 1)[1] }}{{ out.rfind('\n') }}{{ (out | trim).rstrip('\n')[-3:] }}"
    assert AgentTemplate(template).render(out=text) == "one two799999two"


def test_underpriced_work_ends_at_the_cpu_limit(monkeypatch):
    monkeypatch.setattr(template_meter, "LIMIT_S", 0)
    with pytest.raises(TemplateFailedError, match="it takes more than 0 s"):
        AgentTemplate("{% for i in range(1000) %}{% endfor %}").render()


def test_mini_swe_agent_modules_use_the_safe_template():
    modules = (mini_swe.default, mini_swe.actions_text, mini_swe.actions_toolcall)
    assert {module.Template for module in modules} == {AgentTemplate}


@pytest.mark.parametrize("name", ["system_template", "instance_template", "observation_template"])
def test_no_template_of_an_agent_runs_code(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sandbox").mkdir()
    settings = text_settings(**{name: "{{ " + TOUCH + " }}", "origin": "theirs.yaml"})
    answers = [bash("true"), bash(SUBMIT)]
    script = Script(conversations=[Conversation(answers=answers)])
    with ScriptedServer(script) as server, pytest.raises(InputError) as refused:
        play_on(server, ShellSandbox(tmp_path / "sandbox"), settings)
    section = "model" if name == "observation_template" else "agent"
    assert str(refused.value).startswith(f"theirs.yaml: {section}.{name} cannot be filled in: access to attribute")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.rglob("pwned"))


def test_a_template_for_malformed_answers_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = text_settings(format_error_template="{{ " + TOUCH + " }}")
    failed = pytest.raises(InputError, match=r"model\.format_error_template cannot be filled in")
    with ScriptedServer(Script(conversations=[Conversation(answers=["no command"])])) as server, failed:
        play_on(server, ShellSandbox(tmp_path), settings)
    assert list(tmp_path.iterdir()) == []


def test_template_including_other_files_is_refused_before_the_run(tmp_path):
    file = tmp_path / "theirs.yaml"
    file.write_text("agent:\n  system_template: |\n    one\n    {% include '/etc/passwd' %}\n  instance_template: x\n")
    with pytest.raises(InputError) as refused:
        read_agent_config(str(file))
    assert str(refused.value) == (
        f"{file}: agent.system_template, line 2 of it: include needs other templates: there are none"
    )


def test_error_names_its_template():
    with pytest.raises(TemplateFailedError) as failed:
        AgentTemplate("{{ 1 / 0 }}").render()
    assert (failed.value.source, failed.value.message) == ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero")
