"""The sandbox service as its clients see it: a process, real sandboxes, HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rollmill.sandboxes import remote_cases
from rollmill.sandboxes.sandbox import Limits, SandboxError, SandboxSpec
from tests.services.running import PLAIN, Service, in_thread, marked, raw_request
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SEED_CONFIG = {
    "image": "plain",
    "cwd": "/workspace",
    "env": {"COLOUR": "blue"},
    "forward_env": [],
    "timeout": 30,
    "executable": "docker",
    "run_args": ["--rm"],
    "container_timeout": "2h",
    "pull_timeout": 400,
    "environment_class": "docker_remote",
}


@pytest.fixture
def remote(service):
    with service.remote() as host:
        yield host


def test_a_client_of_the_seeds_is_served(service):
    answer = service.ask("/start", {"config": SEED_CONFIG})
    assert answer.status_code == 200
    started = answer.json()
    assert started["status"] == "started"
    request = {
        "container_id": started["container_id"],
        "command": 'cat word.txt; echo "$COLOUR $SIZE"; pwd; exit 3',
        "cwd": "/workspace",
        "timeout": 30,
        "env": {"SIZE": "7"},
        "forward_env": [],
        "executable": "docker",
    }
    done = service.ask("/execute", request).json()
    assert (done["output"], done["returncode"]) == ("hello\nblue 7\n/workspace\n", 3)
    cleaned = service.ask("/cleanup", {"container_id": started["container_id"], "executable": "docker"})
    assert cleaned.status_code == 200
    assert service.ask("/execute", request).status_code == 404


ECHO = 'while read -r case; do echo ready; read -r go; echo done; echo "$case!"; done'


def test_cases_are_sent_in_pieces_and_answered_at_the_service(remote, monkeypatch):
    monkeypatch.setattr(remote_cases, "PIECE_CHARACTERS", 7)
    sandbox = remote.start(SandboxSpec(image="plain"))
    cases = [f"case {number}" for number in range(9)]
    for _ in range(2):
        done = sandbox.answer_cases(ECHO, cases, timeout_s=30, most_bytes=1000, env={})
        assert (done.outputs, done.fault) == ([f"{case}!" for case in cases], None)
        assert len(done.times) == 9


def test_fault_of_a_program_at_the_service_is_told(remote):
    sandbox = remote.start(SandboxSpec(image="plain"))
    done = sandbox.answer_cases("echo $A >&2; exit 3", ["a"], timeout_s=30, most_bytes=1000, env={"A": "no"})
    assert (done.fault, done.errors, done.returncode) == ("it ended: return code 3", "no\n", 3)


def test_answers_without_cases_are_refused(service, remote):
    sandbox = remote.start(SandboxSpec(image="plain"))
    request = {"container_id": sandbox.id, "command": ECHO, "timeout_s": 9}
    answer = service.ask("/answer_cases", request)
    assert (answer.status_code, answer.json()) == (400, {"detail": "no cases were sent: send them to /cases"})
    assert service.ask("/answer_cases", {**request, "most_bytes": 1 << 30}).status_code == 422


@pytest.mark.parametrize("path", ["/execute", "/cleanup"])
def test_an_unknown_sandbox_is_404(service, path):
    answer = service.ask(path, {"container_id": "nobody", "command": "true"})
    assert answer.status_code == 404
    assert answer.json() == {"detail": "there is no sandbox 'nobody' here"}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"image": "absent"}, "image 'absent'"),
        ({"image": "../plain"}, "image '../plain'"),
        ({"image": "plain", "run_args": ["--rm", "--privileged"]}, "run_args '--privileged' is refused"),
        ({"image": "plain", "run_args": ["-v", "/:/host"]}, "run_args '-v' is refused"),
        ({"image": "plain", "run_args": ["--network=host"]}, "run_args '--network=host' is refused"),
        ({"image": "plain", "forward_env": ["HIDDEN"]}, "forward_env 'HIDDEN' is refused"),
        ({"image": "plain", "container_timeout": "soon"}, "container_timeout 'soon' is not a duration"),
    ],
)
def test_what_is_refused_is_said(service, config, says):
    answer = service.ask("/start", {"config": config})
    assert answer.status_code == 400
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "config: Field required"),
        ({"config": {"image": ""}}, "config.image: String should have at least 1 character"),
        ({"config": {"image": "plain", "timeout": 0}}, "config.timeout: Input should be greater than 0"),
        ({"config": {"image": "plain", "env": {"A": 1}}}, "config.env.A: Input should be a valid string"),
    ],
)
def test_a_wrong_body_is_answered_in_one_line(service, body, detail):
    answer = service.ask("/start", body)
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})


def test_only_granted_variables_are_handed_on(service):
    sandbox = service.start()
    request = {"container_id": sandbox, "command": "env", "forward_env": ["GRANTED"]}
    output = service.ask("/execute", request).json()["output"]
    assert "GRANTED=given\n" in output
    assert "canary" not in output
    assert "secret" not in output
    refused = service.ask("/execute", {**request, "forward_env": ["ROLLMILL_SANDBOX_TOKEN"]})
    assert refused.status_code == 400
    service.ask("/cleanup", {"container_id": sandbox})


@pytest.mark.parametrize("path", ["/status", "/start", "/execute", "/cleanup", "/nothing"])
@pytest.mark.parametrize("token", [None, "wrong", "secrets", "sécret"])
def test_requests_without_the_token_are_refused(service, path, token):
    headers = {"Authorization": f"Bearer {token}".encode()} if token else {"Authorization": ""}
    answer = service.ask(path, {} if path != "/status" else None, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "no token, or not the right one"}


def test_health_needs_no_token(service):
    answer = service.ask("/health", headers={"Authorization": ""})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_the_same_request_id_is_the_same_sandbox(service):
    with ThreadPoolExecutor(4) as threads:
        result = set(threads.map(lambda _: service.start(request_id="again"), range(4)))
    assert len(result) == 1
    assert service.start(request_id="other") not in result
    before = service.counts()["sandboxes"]
    service.ask("/cleanup", {"container_id": result.pop()})
    assert service.counts()["sandboxes"] == before - 1
    assert service.start(request_id="again") not in result


def test_a_command_that_is_too_long_gives_what_it_said(remote):
    command, living = marked()
    with_sandbox = remote.start(PLAIN)
    done = with_sandbox.execute(f"echo before; {command} & {command}", timeout_s=0.7)
    assert (done.output, done.returncode, done.timed_out) == ("before\n", 124, True)
    assert living() == []
    assert with_sandbox.execute("echo after").output == "after\n"


def test_much_output_is_capped(remote):
    done = remote.start(PLAIN).execute("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo the end")
    assert done.truncated
    assert done.returncode == 0
    assert 190_000 < len(done.output) < 201_000
    assert done.output.startswith("xxx")
    assert done.output.endswith("the end\n")


def test_clients_lower_limits_and_never_raise_them(remote):
    command = "head -c 300000 /dev/zero | tr '\\0' x"
    lower = remote.start(SandboxSpec(image="plain", limits=Limits(output_bytes=2000)))
    assert len(lower.execute(command).output) < 2100
    higher = remote.start(SandboxSpec(image="plain", limits=Limits(output_bytes=10_000_000)))
    assert len(higher.execute(command).output) < 201_000


def test_any_text_goes_through(remote):
    sandbox = remote.start(PLAIN)
    assert sandbox.execute("printf 'a\\xffb\\0c\\r\\n'; echo 'ü\u2028😀'").output == "a\ufffdb\0c\r\nü\u2028😀\n"
    assert sandbox.execute("echo '\ud800'").output == "?\n"
    assert sandbox.execute("echo a\0b").returncode != 0
    assert sandbox.execute("true" + " " * 200_000).returncode != 0
    assert sandbox.execute("exec kill -9 $$").returncode == 137


def test_commands_of_several_sandboxes_run_side_by_side(remote):
    command, living = marked()
    sandboxes = [remote.start(PLAIN) for _ in range(6)]
    running = [in_thread(lambda sandbox=sandbox: sandbox.execute(command, timeout_s=120)) for sandbox in sandboxes]
    wait_until(lambda: len(living()) >= 6)
    for sandbox in sandboxes:
        sandbox.close()
    assert all(isinstance(failure(), SandboxError) for failure in running)


def test_commands_of_one_sandbox_run_one_after_another(remote):
    sandbox = remote.start(PLAIN)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: sandbox.execute(f"echo in >> log; sleep 0.1; echo out{n} >> log"), range(4)))
    lines = sandbox.execute("cat log").output.split()
    assert lines[::2] == ["in"] * 4
    assert sorted(lines[1::2]) == ["out0", "out1", "out2", "out3"]


def test_eight_clients_at_once(service):
    def client(number):
        with service.remote() as host:
            for turn in range(3):
                sandbox = host.start(PLAIN)
                name = f"{number}-{turn}"
                assert sandbox.execute(f"echo {name} > mine; cat word.txt").output == "hello\n"
                assert sandbox.execute("cat mine; ls").output == f"{name}\nmine\nword.txt\n"
                sandbox.close()
        return number

    before = service.counts()["sandboxes"]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(client, range(8))) == list(range(8))
    assert service.counts()["sandboxes"] == before


def test_cleanup_ends_a_running_command(remote):
    command, living = marked()
    sandbox = remote.start(PLAIN)
    running = in_thread(lambda: sandbox.execute(command, timeout_s=60))
    wait_until(living)
    sandbox.close()
    failure = running()
    assert isinstance(failure, SandboxError)
    assert failure.type == "unknown_sandbox"
    assert living() == []


def test_a_full_host_queues_first_come_first_served(small_service):
    first = small_service.start()
    second = in_thread(small_service.start)
    wait_until(lambda: small_service.counts()["waiting"] == 1)
    third = in_thread(small_service.start)
    wait_until(lambda: small_service.counts()["waiting"] == 2)
    small_service.ask("/cleanup", {"container_id": first})
    received = second()
    assert small_service.counts()["waiting"] == 1
    small_service.ask("/cleanup", {"container_id": received})
    small_service.ask("/cleanup", {"container_id": third()})
    assert small_service.counts()["sandboxes"] == 0


def test_who_waits_too_long_is_told_to_come_again(small_service):
    first = small_service.start()
    answer = small_service.ask("/start", {"config": {"image": "plain"}})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.json() == {"detail": "all 1 sandboxes are taken, and none became free within 2 s"}
    small_service.ask("/cleanup", {"container_id": first})


def test_a_client_waits_longer_than_the_queue(small_service):
    with small_service.remote(max_retries=0) as host:
        first = host.start(PLAIN)
        waiting = in_thread(lambda: host.start(PLAIN))
        for _ in range(8):  # in use, so that it is not idle
            first.execute("sleep 0.5")
        first.close()
        assert waiting().execute("cat word.txt").output == "hello\n"


def test_graders_have_places_of_their_own(small_service):
    with small_service.remote() as agents, small_service.remote(for_grading=True) as graders:
        agents.start(PLAIN)
        assert graders.start(PLAIN).execute("cat word.txt").output == "hello\n"
        assert small_service.counts()["sandboxes"] == 2


def test_who_hangs_up_while_waiting_takes_no_place(small_service):
    first = small_service.start()
    with raw_request(small_service, "/start", {"config": {"image": "plain"}}):
        wait_until(lambda: small_service.counts()["waiting"] == 1)
    wait_until(lambda: small_service.counts()["waiting"] == 0, 1.5)
    small_service.ask("/cleanup", {"container_id": first})
    assert small_service.counts()["sandboxes"] == 0


def test_idle_sandboxes_are_closed_and_busy_ones_are_not(small_service):
    sandbox = small_service.start()
    request = {"container_id": sandbox, "command": "sleep 4.5; echo done"}
    assert small_service.ask("/execute", request).json()["output"] == "done\n"
    wait_until(lambda: small_service.counts()["sandboxes"] == 0, 6)
    assert small_service.ask("/execute", request).status_code == 404


def test_client_disconnecting_mid_command_loses_its_sandbox(small_service):
    command, living = marked()
    sandbox = small_service.start()
    with raw_request(small_service, "/execute", {"container_id": sandbox, "command": command}):
        wait_until(living)
    wait_until(lambda: not living(), 3)
    wait_until(lambda: small_service.counts()["sandboxes"] == 0, 3)


def test_a_client_that_was_killed_loses_its_sandboxes(images):
    starting = (
        "import sys, time; from rollmill.sandboxes.remote import RemoteHost, SandboxSpec\n"
        "host = RemoteHost(sys.argv[1]); host.start(SandboxSpec(image='plain')); print('started', flush=True)\n"
        "time.sleep(100)"
    )
    with Service("sandbox", "--images", images, "--gone_s", 3) as service:
        command = [sys.executable, "-c", starting, service.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout.readline() == "started\n"
            time.sleep(5)
            assert service.counts()["sandboxes"] == 1  # it thinks, and says that it is alive
            client.kill()
        wait_until(lambda: service.counts()["sandboxes"] == 0, 8)


def test_a_sandbox_whose_client_says_nothing_of_itself_stays(images):
    with Service("sandbox", "--images", images, "--gone_s", 0.5) as service:
        service.start()
        time.sleep(2)
        assert service.counts()["sandboxes"] == 1


def test_container_timeout_ends_a_busy_sandbox(small_service):
    command, living = marked()
    answer = small_service.ask("/start", {"config": {"image": "plain", "container_timeout": "2s"}})
    request = {"container_id": answer.json()["container_id"], "command": command}
    assert small_service.ask("/execute", request).status_code == 404
    assert living() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_ends_with_its_sandboxes(images, number):
    command, living = marked()
    service = Service("sandbox", "--images", images)
    with service.remote() as host:
        idle, sandbox = host.start(PLAIN), host.start(PLAIN)
        folders = list(_folders(idle.id, sandbox.id))
        running = in_thread(lambda: sandbox.execute(command, timeout_s=60))
        wait_until(living)
        status, _ = service.end(number)
        assert isinstance(running(), SandboxError)
    assert status == {signal.SIGTERM: 143, signal.SIGINT: 0}[number]
    assert living() == []
    assert len(folders) == 2
    assert not any(folder.exists() for folder in folders)


def test_kill_9_in_the_middle_of_a_command(images):
    command, living = marked()
    service = Service("sandbox", "--images", images)
    with service.remote() as host:
        sandbox = host.start(PLAIN)
        [folder] = _folders(sandbox.id)
        running = in_thread(lambda: sandbox.execute(command, timeout_s=60))
        wait_until(living)
        service.end(signal.SIGKILL)
        failure = running()
    assert isinstance(failure, SandboxError)
    assert failure.type == "connection"
    wait_until(lambda: not living())
    with Service("sandbox", "--images", images):
        assert not folder.exists()


def _folders(*ids):
    for name in ids:
        yield from Path("/tmp").glob(f"rollmill-sandboxes-*/*/{name}")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--host", "0.0.0.0"], 1, "set ROLLMILL_SANDBOX_TOKEN in the environment"),
        (["--host", "no.such.host.invalid"], 1, "others reach it"),
        (["--port", "99999"], 2, "--port"),
        (["--max_sandboxes", "0"], 2, "--max_sandboxes"),
    ],
)
def test_mistakes_are_one_line(images, arguments, status, says):
    _fails(["--images", str(images), *arguments], status, says)


def test_a_missing_or_wrong_image_folder_is_one_line(tmp_path):
    _fails([], 2, "--images is required")
    _fails(["--images", str(tmp_path / "none"), "--port", "0"], 1, "none")


def test_a_taken_port_is_one_line(service, images):
    _fails(["--images", str(images), "--port", str(service.port)], 1, f"process {service.process.pid}")


def _fails(arguments, status, says):
    command = [sys.executable, "-m", "rollmill.services.sandbox", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
