"""The agent in real sandboxes."""

import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from rollmill.agents.playing import CANCELLED, FAILED
from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.sandbox import Limits, SandboxSpec
from tests.agents.scripted_agents import SUBMIT, bash, call, play_on, text_settings, tool_settings

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    images = tmp_path_factory.mktemp("images")
    (images / "p").mkdir()
    (images / "p" / "a.py").write_text("A = 1\n")
    root = Path(tempfile.mkdtemp(prefix="rollmill-test-"))
    root.chmod(0o711)
    with BubblewrapHost(images, root=root) as started:
        yield started
    shutil.rmtree(root)


@pytest.fixture
def sandbox(host):
    started = host.start(SandboxSpec(image="p", limits=Limits(memory_mb=256)))
    yield started
    started.close()


def playing(sandbox, settings, *answers, **rest):
    scripted = [answer if isinstance(answer, str) else ScriptedAnswer(**answer) for answer in answers]
    with ScriptedServer(Script(conversations=[Conversation(answers=scripted)])) as server:
        return play_on(server, sandbox, settings, **rest)


def test_agent_changes_a_file_and_submits(sandbox):
    played = playing(sandbox, text_settings(), bash("sed -i s/1/2/ a.py"), bash(f"{SUBMIT}; git diff"))
    assert (played.exit_status, played.error) == ("Submitted", None)
    assert "-A = 1\n+A = 2\n" in played.submission
    assert f"Linux {Path('/proc/sys/kernel/osrelease').read_text().strip()}" in played.messages[1]["content"]


def test_agent_uses_tool_calls(sandbox):
    played = playing(sandbox, tool_settings(), call("echo 3 > a.py", "cat a.py"), call(SUBMIT))
    assert played.exit_status == "Submitted"
    assert [answer["content"].split('"output": ')[1] for answer in played.messages[3:5]] == ['""\n}', '"3\\n"\n}']


def test_prompts_contain_nothing_of_the_host(sandbox, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    played = playing(sandbox, text_settings(), bash("env; echo $PAGER"), bash(SUBMIT))
    observation = played.messages[3]["content"]
    assert "PAGER=cat" in observation
    assert "hf_secret" not in observation


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("kill -9 -1; kill -9 $$", 137),
        ("rm -rf /workspace/* /workspace/.git; cd /; rmdir /workspace", 1),
        ("echo a\0b", 126),
        ("x=" + "y" * 200_000, 126),
        ("printf '\\xff\\xfe'", 0),
        ("exec 1>&- 2>&-; sleep 0.1; exit 9", 9),
        ("(", 2),
    ],
)
def test_any_command_gives_an_observation(sandbox, command, expected):
    played = playing(sandbox, text_settings(), bash(command), bash(SUBMIT))
    assert (played.exit_status, played.error) == ("Submitted", None)
    assert played.messages[3]["extra"]["returncode"] == expected


def test_timeout_is_reported(sandbox):
    settings = text_settings(timeout_s=1.0)
    played = playing(sandbox, settings, bash("echo early; sleep 20"), bash(SUBMIT))
    assert played.exit_status == "Submitted"
    assert "timed out after 1.0 seconds" in played.messages[3]["content"]
    assert "early" in played.messages[3]["content"]


def test_exceeded_limit_is_reported(sandbox):
    eat = "python3 -c 'import time; a = b\"x\" * (150 << 20); time.sleep(20)'"
    played = playing(sandbox, text_settings(), bash(f"{eat} & {eat} & wait"), bash(SUBMIT))
    assert played.exit_status == "Submitted"
    assert played.messages[3]["extra"]["returncode"] == 137
    assert "<exception>An error occurred while executing the command: " in played.messages[3]["content"]
    assert "memory" in played.messages[3]["content"]


def test_sandbox_closed_during_a_command_is_an_error(sandbox):
    threading.Timer(1.0, sandbox.close).start()
    played = playing(sandbox, text_settings(), bash("echo go; sleep 20"))
    assert (played.exit_status, played.error.type) == (FAILED, "unknown_sandbox")
    assert [message["role"] for message in played.messages] == ["system", "user", "assistant"]


def test_sandbox_closed_by_the_runs_end_is_a_cancellation(sandbox):
    stop = threading.Event()
    threading.Timer(0.8, stop.set).start()
    threading.Timer(1.0, sandbox.close).start()
    played = playing(sandbox, text_settings(), bash("sleep 20"), stop=stop)
    assert (played.exit_status, played.error.type) == (FAILED, CANCELLED)
    assert subprocess.run(["pgrep", "-f", "sleep 20$"], check=False).returncode == 1
