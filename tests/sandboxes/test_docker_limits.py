"""Programs that try to use more than a Docker sandbox's limits, on a real engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rollmill.errors import InputError
from rollmill.sandboxes.docker import DockerHost
from rollmill.sandboxes.sandbox import Limits, SandboxSpec
from tests.sandboxes.docker_evasions import EVASIONS
from tests.sandboxes.engine import IMAGE, change_image, import_image
from tests.sandboxes.test_docker import names

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LIMITS = Limits(memory_mb=64, processes=16, cpu_s=3, disk_mb=40)
MESSAGES = {"CPU": "CPU limit of 3 s", "disk": "disk limit of 40 MiB", "memory": "memory limit of 64 MiB"}
CPU_USED = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>&- || head -1 /sys/fs/cgroup/cpu.stat"
OUT_OF_REACH = "the end of the process that counts for its limits"
FIND_WATCH = """
import os, time
watch = next(int(each) for each in os.listdir('/proc') if each.isdigit() and int(each) > 1
             and b'cpu_limit' in open(f'/proc/{each}/cmdline', 'rb').read())
"""


@pytest.fixture(scope="module")
def host(engine):
    with DockerHost(docker_host=engine) as started:
        yield started
    assert names(engine) == []


@pytest.fixture(scope="module")
def image(engine, images):
    return import_image(engine, images / "small", "rollmill-test-ctypes:1", with_ctypes=True)


@pytest.fixture(scope="module")
def sandbox(host, image):
    """A sandbox whose commands are root's."""
    return host.start(SandboxSpec(image=image, limits=LIMITS))


@pytest.fixture(scope="module")
def of_user(host, engine, image):
    """A sandbox whose commands are an ordinary user's, with a volume at /data."""
    changes = ["USER 1000:1000", "VOLUME /data", "WORKDIR /tmp"]
    changed = change_image(engine, image, "rollmill-test-user:1", "mkdir -m 777 /data", *changes)
    return host.start(SandboxSpec(image=changed, limits=LIMITS))


@pytest.fixture(scope="module")
def without_setpriv(host, engine, image):
    """A sandbox whose commands can end the process that counts."""
    changed = change_image(engine, image, "rollmill-test-bare:1", "rm /usr/bin/setpriv")
    return host.start(SandboxSpec(image=changed, limits=LIMITS))


def attempt(sandbox, program: str):
    sandbox.execute("rm -rf /tmp/* /data/*")
    return sandbox.execute(f"exec python3 /dev/fd/3 3<<'END'\n{program}\nEND", timeout_s=30)


def last_number(output: str) -> int:
    return int(re.findall(r"^\d+$", output, re.MULTILINE)[-1])


def cpu_s(sandbox) -> float:
    used = sandbox.execute(CPU_USED).output
    return int(used.split()[-1]) / (1e6 if "usec" in used else 1e9)


@pytest.mark.parametrize("name", [name for name, evasion in EVASIONS.items() if evasion.limit == "CPU"])
def test_cpu_time_is_bounded(sandbox, name):
    before = cpu_s(sandbox)
    done = attempt(sandbox, EVASIONS[name].program)
    assert (done.killed_by, done.returncode) == (MESSAGES["CPU"], 137)
    assert cpu_s(sandbox) - before < 1.25 * 3  # three more commands


@pytest.mark.parametrize("name", [name for name, evasion in EVASIONS.items() if evasion.limit == "disk"])
def test_files_are_bounded(sandbox, name):
    done = attempt(sandbox, EVASIONS[name].program)
    assert (done.killed_by, done.returncode) == (MESSAGES["disk"], 137)
    # Of other files the free space of the disk tells, which other tests use too.
    assert not EVASIONS[name].visible or last_number(done.output) <= 1.25 * 40


@pytest.mark.parametrize("name", [name for name, evasion in EVASIONS.items() if evasion.limit == "memory"])
def test_memory_is_bounded(sandbox, name):
    done = attempt(sandbox, EVASIONS[name].program)
    assert (done.killed_by, done.returncode) == (MESSAGES["memory"], 137)
    assert last_number(done.output) <= 1.25 * 64


@pytest.mark.parametrize("name", ["deleted files", "UDP"])
def test_limits_hold_for_an_ordinary_user(of_user, name):
    done = attempt(of_user, EVASIONS[name].program)
    assert (done.killed_by, done.returncode) == (MESSAGES[EVASIONS[name].limit], 137)


def test_files_of_a_volume_are_bounded(of_user):
    done = attempt(of_user, EVASIONS["many files"].program.replace("/tmp/", "/data/"))
    assert done.killed_by == MESSAGES["disk"]


def test_names_without_content_are_bounded(host, image):
    sandbox = host.start(SandboxSpec(image=image, limits=LIMITS.model_copy(update={"disk_mb": 8})))
    done = attempt(sandbox, "import os\nfor n in range(10**6): os.close(os.open(f'/tmp/{n}', os.O_CREAT))")
    assert done.killed_by == "disk limit of 8 MiB"
    sandbox.close()


def test_files_that_the_engine_mounts_are_bounded(sandbox):
    program = """
import time
for name in ("/etc/hosts", "/etc/resolv.conf"):
    with open(name, "wb") as file:
        for _ in range(30):
            file.write(bytes(1 << 20))
time.sleep(20)
"""
    done = attempt(sandbox, program)
    assert done.killed_by == MESSAGES["disk"]
    sandbox.execute("> /etc/hosts; > /etc/resolv.conf")


def test_limits_hold_for_a_program_that_answers_cases(sandbox):
    sandbox.execute("rm -rf /tmp/*")
    program = EVASIONS["deleted files"].program.replace("print(number + 1, flush=True)", "")
    command = f"exec python3 /dev/fd/3 3<<'END'\n{program}\nEND"
    done = sandbox.answer_cases(command, ["a"], timeout_s=30, most_bytes=1000, env={})
    assert (len(done.outputs), done.returncode) == (0, 137)
    assert MESSAGES["disk"] in str(done.fault)


def test_files_over_the_limit_can_be_deleted(sandbox):
    attempt(sandbox, EVASIONS["many files"].program)
    assert sandbox.execute("rm -rf /tmp/*; sleep 2; echo deleted").output == "deleted\n"


@pytest.mark.parametrize(
    "start",
    ["os.fork() == 0 and time.sleep(60)", "threading.Thread(target=time.sleep, args=[60], daemon=True).start()"],
)
def test_processes_and_threads_are_bounded(sandbox, start):
    program = f"import os, threading, time\ncount = 1\ntry:\n    while True:\n        {start}\n        count += 1\n"
    done = attempt(sandbox, f"{program}except (OSError, RuntimeError):\n    print(count, flush=True)\n    os._exit(0)")
    assert 12 <= int(done.output) <= 1.25 * 16


def test_the_first_process_cannot_be_changed(sandbox):
    program = """
import ctypes, os, resource
C = ctypes.CDLL(None, use_errno=True)
print(C.ptrace(16, 1, 0, 0), ctypes.get_errno())
for each in (lambda: os.open('/proc/1/mem', os.O_RDWR), lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)),
             lambda: os.kill(1, 10), lambda: os.kill(1, 19)):
    try:
        each()
    except PermissionError:
        print('refused')
"""
    assert attempt(sandbox, program).output == "-1 1\n" + 4 * "refused\n"


def test_processes_that_kill_the_shell_around_them_are_ended(sandbox):
    program = """
import os, signal, time
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        for name in ('SIGTERM', 'SIGHUP', 'SIGUSR1'):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        time.sleep(60)
for each in os.listdir('/proc'):
    if each.isdigit() and b'mark=' in open(f'/proc/{each}/cmdline', 'rb').read():
        os.kill(int(each), 9)
"""
    assert attempt(sandbox, program).returncode == 137
    assert "60" not in sandbox.execute("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c 'sleep(60)'").output


def test_the_process_that_counts_cannot_be_reached(sandbox):
    program = f"""{FIND_WATCH}
for number in (9, 19):
    try:
        os.kill(watch, number)
    except PermissionError:
        print(1)
"""
    assert attempt(sandbox, program).output == "1\n1\n"


@pytest.mark.parametrize("number", [9, 19])
def test_without_setpriv_who_ends_the_process_that_counts_is_ended(without_setpriv, number):
    done = attempt(without_setpriv, f"{FIND_WATCH}\nos.kill(watch, {number})\ntime.sleep(60)")
    assert (done.killed_by, done.timed_out) == (OUT_OF_REACH, False)
    assert without_setpriv.execute("echo next").output == "next\n"


def test_an_ordinary_program_meets_no_limit(sandbox):
    program = """
import os, socket, subprocess, tempfile
file = tempfile.TemporaryFile()
file.write(bytes(8 << 20))
file.flush()
os.posix_fallocate(file.fileno(), 8 << 20, 1 << 20)
a, b = socket.socketpair()
socket.send_fds(a, [b'x'], [file.fileno()])
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
subprocess.run(['git', 'init', '-q', '/tmp/new'], check=True, stderr=subprocess.DEVNULL)
print('done')
"""
    done = attempt(sandbox, program)
    assert (done.output, done.returncode, done.killed_by) == ("done\n", 0, None)


def test_an_engine_that_refuses_the_second_container_is_reported_once(engine, tmp_path, caplog):
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\ncase "$*" in *"--pid "*) echo no such namespace >&2; exit 125;; esac\nexec docker "$@"\n'
    )
    docker.chmod(0o755)
    with DockerHost(docker_host=engine, executable=str(docker)) as host:
        for _ in range(2):
            sandbox = host.start(SandboxSpec(image=IMAGE))
            assert sandbox.execute("setsid sleep 77 & echo ran; kill -9 $PPID").output == "ran\n"
            assert "77" not in sandbox.execute("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; true").output.replace(
                "sleep 77 &", ""
            )
    assert [record.getMessage().endswith("no such namespace") for record in caplog.records] == [True]


@pytest.mark.parametrize("run_args", [["--pid", "host"], ["--pid=host"]])
def test_processes_of_the_host_are_refused(engine, run_args):
    with pytest.raises(InputError, match="--pid is refused"):
        DockerHost(docker_host=engine, run_args=run_args)


def test_limits_hold_for_a_client_that_is_an_ordinary_user(engine, image):
    user = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    project = Path(__file__).parents[2]
    if subprocess.run([*user, sys.executable, "-c", "import rollmill"], cwd=project, capture_output=True).returncode:
        pytest.skip("another user cannot read this project")
    socket = Path(engine.removeprefix("unix://"))
    socket.parent.chmod(0o711)
    os.chown(socket, 0, 12345)
    code = f"""
        from rollmill.sandboxes.docker import DockerHost
        from rollmill.sandboxes.sandbox import Limits, SandboxSpec
        from tests.sandboxes.docker_evasions import EVASIONS
        with DockerHost(docker_host={engine!r}) as host:
            sandbox = host.start(SandboxSpec(image={image!r}, limits=Limits.model_validate({LIMITS.model_dump()!r})))
            program = EVASIONS["deleted files"].program
            print(sandbox.execute(f"exec python3 /dev/fd/3 3<<'END'\\n{{program}}\\nEND").killed_by)
    """
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*user, sys.executable, "-c", textwrap.dedent(code)],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{MESSAGES['disk']}\n", done.stderr
