"""Sandboxes on a real Docker engine."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollmill.errors import InputError
from rollmill.sandboxes.docker import DockerHost
from rollmill.sandboxes.files import read_file, write_file
from rollmill.sandboxes.sandbox import Limits, SandboxError, SandboxSpec
from tests.sandboxes.engine import IMAGE

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def host(engine):
    with DockerHost(docker_host=engine) as started:
        yield started
    assert names(engine) == []


@pytest.fixture
def sandbox(host):
    started = host.start(SandboxSpec(image=IMAGE, limits=Limits(memory_mb=96, processes=40, output_bytes=10_000)))
    yield started
    started.close()


def names(engine: str) -> list[str]:
    listed = subprocess.run(
        ["docker", "-H", engine, "ps", "--all", "--format", "{{.Names}}"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def alone(sandbox) -> bool:
    """Return whether only the first process runs in the container."""
    seen = sandbox.execute("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").output
    return "sleep" not in seen and "yes" not in seen


def test_commands_files_environment_and_folders(sandbox):
    done = sandbox.execute("pwd; ./run.sh; git status --porcelain; echo $A >&2; exit 7", env={"A": "x"})
    assert (done.output, done.returncode, done.truncated) == ("/workspace\nran\nx\n", 7, False)
    sandbox.execute("echo 1 > /tmp/a")
    assert sandbox.execute("cat a; pwd", cwd="/tmp").output == "1\n/tmp\n"
    missing = sandbox.execute("true", cwd="/not/there")
    assert (missing.returncode, missing.output) == (126, "bash: line 1: cd: /not/there: No such file or directory\n")
    assert sandbox.execute("x" * 200_000).returncode == 126
    data = os.urandom(300_000)
    write_file(sandbox, "/tmp/data", data)
    assert read_file(sandbox, "/tmp/data", most=300_000) == data


def test_no_network_no_capability_no_new_privilege(sandbox):
    assert sandbox.execute("ls /sys/class/net").output == "lo\n"
    done = sandbox.execute("grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status | tr -d '[:space:]'")
    assert done.output == f"CapEff:{'0' * 16}CapBnd:{'0' * 16}NoNewPrivs:1"


def test_timed_out_command_ends_with_its_children(sandbox):
    done = sandbox.execute("echo so far; setsid sleep 300 & nohup sleep 300 & sleep 300", timeout_s=1)
    assert (done.output, done.returncode, done.timed_out) == ("so far\n", 124, True)
    assert alone(sandbox)


def test_background_processes_are_ended(sandbox):
    done = sandbox.execute("setsid nohup sleep 300 > /dev/null & yes > /dev/null & echo over")
    assert (done.output, done.returncode) == ("over\n", 0)
    assert alone(sandbox)


def test_command_killing_its_supervisor_leaves_no_process(sandbox):
    done = sandbox.execute("setsid sleep 300 > /dev/null & sleep 0.2; kill -9 $PPID; sleep 300", timeout_s=30)
    assert (done.returncode, done.timed_out, done.killed_by) == (137, False, None)
    assert alone(sandbox)
    assert sandbox.execute("(kill -9 -1) & wait", timeout_s=30).returncode == 137
    assert sandbox.execute("echo next").output == "next\n"


def test_memory_and_processes_of_the_container_are_bounded(sandbox):
    done = sandbox.execute("python3 -c 'bytearray(10 << 30)'; exec python3 -c 'x = bytearray(400 << 20)'", timeout_s=60)
    assert (done.returncode, done.killed_by) == (137, "memory limit of 96 MiB")
    done = sandbox.execute("kill -9 $$")
    assert (done.returncode, done.killed_by) == (137, None)
    done = sandbox.execute(":(){ :|:& };: ; sleep 300", timeout_s=2)
    assert done.timed_out
    assert alone(sandbox)
    assert sandbox.execute("echo next").output == "next\n"


def test_endless_output_keeps_both_ends(sandbox):
    done = sandbox.execute("echo first; yes", timeout_s=2)
    assert (done.timed_out, done.truncated, done.output[:8]) == (True, True, "first\ny\n")
    done = sandbox.execute("echo first; head -c 50000 /dev/zero | tr '\\0' y; echo; echo last; exit 3")
    assert (done.returncode, done.truncated, done.output[:7], done.output[-6:]) == (3, True, "first\ny", "\nlast\n")


def test_unavailable_image_is_named(host):
    for name in ("no-such-image:9", "--privileged", ""):
        with pytest.raises(InputError, match=f"image '{name}'"):
            host.start(SandboxSpec(image=name))


def test_removed_container_is_a_sandbox_error(host, engine):
    sandbox = host.start(SandboxSpec(image=IMAGE))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sandbox.execute, "touch /tmp/began; sleep 60")
        time.sleep(1.5)
        subprocess.run(["docker", "-H", engine, "rm", "-f", sandbox.id], check=True, capture_output=True)
        with pytest.raises(SandboxError):
            running.result(30)
    with pytest.raises(SandboxError) as caught:
        sandbox.execute("true")
    assert caught.value.type == "engine"
    sandbox.close()
    with pytest.raises(SandboxError, match="there is no sandbox"):
        host.find(sandbox.id)


def test_missing_engine_is_reported(tmp_path):
    with pytest.raises(SandboxError, match="docker version: "):
        DockerHost(docker_host=f"unix://{tmp_path}/none.sock")
    with pytest.raises(InputError, match="'no-docker' is not installed"):
        DockerHost(executable="no-docker")


def test_a_container_ends_by_itself_after_its_time(engine):
    with DockerHost(docker_host=engine, container_timeout_s=1) as host:
        sandbox = host.start(SandboxSpec(image=IMAGE))
        time.sleep(2.5)
        with pytest.raises(SandboxError):
            sandbox.execute("true")


def test_next_owner_removes_containers_of_a_killed_one(engine):
    code = f"""
        import os, signal
        from rollmill.sandboxes.docker import DockerHost
        from rollmill.sandboxes.sandbox import SandboxSpec
        sandbox = DockerHost(docker_host={engine!r}).start(SandboxSpec(image={IMAGE!r}))
        sandbox.execute("true")
        print(sandbox.id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    owner = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    [left] = owner.stdout.split()
    assert left in names(engine)
    with DockerHost(docker_host=engine):
        assert names(engine) == []


ECHO = """
import sys
for line in iter(sys.stdin.readline, ""):
    print("ready", flush=True)
    sys.stdin.readline()
    print("done", flush=True)
    print(line.upper(), end="", flush=True)
"""


def test_a_program_answers_cases(sandbox):
    write_file(sandbox, "/tmp/echo.py", ECHO.encode())
    done = sandbox.answer_cases("python3 /tmp/echo.py", ["a", "b" * 99_999], timeout_s=30, most_bytes=1 << 20, env={})
    assert (done.outputs, done.fault) == (["A", "B" * 99_999], None)
    assert len(done.times) == 2
    assert alone(sandbox)


def test_a_program_that_does_not_answer_is_killed(sandbox):
    done = sandbox.answer_cases("sleep 77 & sleep 88", ["a"], timeout_s=1, most_bytes=1000, env={})
    assert (done.fault, done.returncode) == ("its time of 1.0 s was over", 124)
    assert alone(sandbox)
    lost = sandbox.answer_cases("exit 3", ["a"], timeout_s=9, most_bytes=1000, env={})
    assert lost.fault == "it ended: return code 3"
