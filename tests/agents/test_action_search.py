import json
import re
import subprocess
import sys

import pytest

from rollmill.agents import action_search
from rollmill.agents.action_search import ActionSearch, ActionSearchError
from rollmill.agents.config import read_agent_config
from rollmill.agents.settings import TEXT_REGEX, V1_REGEX
from rollmill.errors import InputError
from rollmill.inference.scripted import Conversation, Script, ScriptedServer
from tests.agents.scripted_agents import ShellSandbox, play_on, text_settings

ANSWERS = [
    "",
    "```bash\nls\n```",
    "```bash\na\n```\n```bash  \nb\n\n```",
    "```bash\n" * 50,
    "```mswea_bash_command\nx\n```",
]


@pytest.mark.parametrize("pattern", [TEXT_REGEX, V1_REGEX, r"<cmd>(.*?)</cmd>", r"(?im)^run: (.*)$"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_search_matches_re_findall(pattern, answer):
    assert ActionSearch.findall(pattern, answer, re.DOTALL) == re.findall(pattern, answer, re.DOTALL)


@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        (r"(a|aa)+$", "a" * 60 + "b"),
        (r"(.*?,){25}x", "," * 3000),
        (r"(?:(?:(?:a{1,100}){1,100}){1,100})!", "a" * 3000),
    ],
)
def test_catastrophic_backtracking_fails_the_rollout(monkeypatch, tmp_path, pattern, answer):
    monkeypatch.setattr(action_search, "LIMIT_S", 0.05)
    with pytest.raises(ActionSearchError, match="takes more than"):
        ActionSearch.findall(pattern, answer, re.DOTALL)
    with ScriptedServer(Script(conversations=[Conversation(answers=[answer])])) as server:
        played = play_on(server, ShellSandbox(tmp_path), text_settings(action_regex=pattern))
    assert played.error.type == "action_regex"
    assert "write it without repetitions in repetitions" in played.error.message
    assert (played.exit_status, played.submission) == ("error", "")


@pytest.mark.parametrize("pattern", ["(", "(" * 3000, "a{99999999999999999999}", "[", "(?P<x>"])
def test_invalid_expression_is_refused_in_one_line(tmp_path, pattern):
    file = tmp_path / "mine.yaml"
    file.write_text(f"agent: {{system_template: a, instance_template: b}}\nmodel: {{action_regex: '{pattern}'}}\n")
    with pytest.raises(InputError) as refused:
        read_agent_config(str(file))
    assert str(refused.value).startswith(f"{file}: model.action_regex is no regular expression: ")


LARGE = [
    "a{10000000}",
    "a{4294967294}",
    "a{100000}?",
    "(?:(?:(?:a{100}){100}){100}){100}",
    "(?x) a{100 000 000}",
    "(?x:a{1#\n00000000})",
    "(?P<x>b|(?=(?:cd|[ef]{10000000})))",
    "(a)?(?(1)a{100000000}|b)",
    "ab{9000}" * 3,
    "()" * 4000,
]
BOUNDED = """
import json, resource, sys
from rollmill.agents.action_search import ActionSearch
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
for pattern in json.loads(sys.argv[1]):
    try:
        ActionSearch.groups(pattern)
    except ValueError:
        continue
    sys.exit(f"{pattern[:50]} is taken")
"""


def test_expression_that_exhausts_memory_is_refused():
    command = [sys.executable, "-c", BOUNDED, json.dumps(LARGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("pattern", LARGE)
def test_large_expression_is_refused_in_one_line(tmp_path, pattern):
    file = tmp_path / "mine.json"
    model = {"action_regex": pattern}
    file.write_text(json.dumps({"agent": {"system_template": "a", "instance_template": "b"}, "model": model}))
    with pytest.raises(InputError) as refused:
        read_agent_config(str(file))
    assert str(refused.value).startswith(f"{file}: model.action_regex is no regular expression: ")
    assert "\n" not in str(refused.value)


def test_usual_repetitions_are_accepted():
    assert ActionSearch.groups(r"(?x) ^ \d{4} - \d{2} \s* `{3,} (?: \w{1,99} [ ]? ){0,1000} (.*?) \{ a # brace") == 1
