import os
import time

import pytest

from rollmill.agents.environment import SandboxEnvironment
from rollmill.agents.mini_swe import Submitted
from rollmill.sandboxes.sandbox import Execution, SandboxError
from tests.agents.scripted_agents import ShellSandbox, text_settings


class FixedOutputSandbox(ShellSandbox):
    """Returns a fixed result for every command, and a fixed `uname` first."""

    def __init__(self, done=None):
        self.commands = []
        self._done = done

    def execute(self, command, **settings):
        self.commands.append((command, settings))
        return self._done if len(self.commands) > 1 else Execution(output="Plan9\nbox\n4\n#1\n", returncode=0)


@pytest.fixture
def make_environment(tmp_path):
    def make(sandbox=None, *, cwd="", ends_at=None, **settings):
        return SandboxEnvironment(
            sandbox or ShellSandbox(tmp_path), text_settings(**settings), cwd=cwd, ends_at=ends_at
        )  # fmt: skip

    return make


def test_output_and_return_code(make_environment):
    environment = make_environment(env={"A": "b c"})
    done = environment.execute({"command": "echo $A; echo bad >&2; exit 3"})
    assert done == {"output": "b c\nbad\n", "returncode": 3, "exception_info": ""}


def test_cwd(make_environment, tmp_path):
    (tmp_path / "inner").mkdir()
    assert make_environment(cwd="inner").execute({"command": "pwd"})["output"] == f"{tmp_path}/inner\n"
    assert make_environment(cwd="inner").execute({"command": "pwd"}, cwd=str(tmp_path))["output"] == f"{tmp_path}\n"


def test_timeout_message_is_that_of_mini_swe_agent(make_environment):
    done = make_environment(timeout_s=0.3).execute({"command": "echo early; sleep 5"})
    assert done == {
        "output": "early\n",
        "returncode": -1,
        "exception_info": (
            "An error occurred while executing the command: Command 'echo early; sleep 5' timed out after 0.3 seconds"
        ),
        "timed_out": "echo early; sleep 5",
    }


def test_exceeded_limit_is_reported(make_environment):
    killed = Execution(output="COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", returncode=137, killed_by="memory: 64 MiB")
    assert make_environment(FixedOutputSandbox(killed)).execute({"command": "x"}) == {
        "output": "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",
        "returncode": 137,
        "exception_info": "An error occurred while executing the command: memory: 64 MiB",
    }


def test_no_command_runs_past_the_wall_time_limit(make_environment, tmp_path):
    sandbox = ShellSandbox(tmp_path)
    make_environment(sandbox, ends_at=time.monotonic() + 20, timeout_s=500.0).execute({"command": "true"})
    make_environment(sandbox, ends_at=time.monotonic() - 20, timeout_s=500.0).execute({"command": "true"})
    make_environment(sandbox, ends_at=time.monotonic() + 20, timeout_s=3.0).execute({"command": "true"})
    limits = [timeout for command, _, timeout, _ in sandbox.commands if command == "true"]
    assert limits == [pytest.approx(20, abs=2), 1.0, 3.0]


@pytest.mark.parametrize("line", ["COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", "MINI_SWE_AGENT_FINAL_OUTPUT"])
def test_submission(make_environment, line):
    environment = make_environment()
    with pytest.raises(Submitted) as submitted:
        environment.execute({"command": f"echo; echo ' {line} '; echo a; echo; echo b"})
    (message,) = submitted.value.messages
    assert message == {
        "role": "exit",
        "content": "a\n\nb\n",
        "extra": {"exit_status": "Submitted", "submission": "a\n\nb\n"},
    }


@pytest.mark.parametrize(
    "command",
    [
        "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; exit 1",
        "echo not yet; echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",
        "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT!",
        "true",
    ],
)
def test_no_submission(make_environment, command):
    assert make_environment().execute({"command": command})["exception_info"] == ""


def test_invalid_commands_are_observations(make_environment):
    sandbox = FixedOutputSandbox()
    environment = make_environment(sandbox)
    for command, words in (("echo a\0b", "NUL byte"), ("#" * 200_000, "Argument list too long")):
        done = environment.execute({"command": command})
        assert (done["returncode"], done["exception_info"]) == (126, "")
        assert words in done["output"]
    assert len(sandbox.commands) == 1
    assert make_environment().execute({"command": "echo a\ud800b"})["output"] == "a?b\n"


def test_lone_surrogates_in_output_are_replaced(make_environment):
    assert (
        make_environment(FixedOutputSandbox(Execution(output="a\udfffb", returncode=0))).execute({"command": "x"})[
            "output"
        ]
        == "a?b"
    )


def test_template_variables_describe_the_sandbox(make_environment, monkeypatch):
    monkeypatch.setenv("SECRET", "s3cret")
    variables = make_environment(
        FixedOutputSandbox(), cwd="/w", env={"PAGER": "cat"}, timeout_s=9.0
    ).get_template_vars()
    assert variables == {
        "system": "Plan9", "node": "box", "release": "4", "version": "#1", "machine": "", "processor": "",
        "cwd": "/w", "env": {"PAGER": "cat"}, "timeout": 9.0,
    }  # fmt: skip
    real = make_environment().get_template_vars()
    assert (real["system"], real["machine"]) == (os.uname().sysname, os.uname().machine)


def test_failed_sandbox_raises(make_environment, tmp_path):
    environment = make_environment(ShellSandbox(tmp_path, dies_at=2))
    with pytest.raises(SandboxError, match="the sandbox is gone"):
        environment.execute({"command": "true"})
