"""The client of a sandbox service: against other services, against a bad network, and against the real one."""

from __future__ import annotations

import json
import time

import pytest
from pydantic import SecretStr

from rollmill.errors import InputError
from rollmill.inference.http_service import service_url
from rollmill.sandboxes.files import read_file, write_file
from rollmill.sandboxes.remote import RemoteHost
from rollmill.sandboxes.sandbox import Limits, SandboxError, SandboxSpec
from tests.inference.raw_server import RawServer
from tests.services.running import PLAIN, RawTCP, Service, in_thread, losing_answers, make_images, read_request, reset
from tests.waiting import wait_until

STARTED = b'{"container_id": "c0ffee", "status": "started"}'


def raw(answers):
    """A server whose answers to requests, by number, are given; the last one from then on. And what it was sent."""
    sent = []

    def answer(headers, body):
        sent.append(json.loads(body))
        return answers[min(len(sent), len(answers)) - 1]

    return RawServer(answer), sent


def address(server):
    return server.base_url.removesuffix("/v1").removeprefix("http://")


def done(**more):
    return 200, json.dumps({"output": "out\n", "returncode": 0, **more}).encode()


def test_a_service_without_cases_is_refused_in_one_line():
    server, _ = raw([(200, STARTED), (404, b'{"detail": "Not Found"}')])
    with server, RemoteHost(address(server)) as host:
        sandbox = host.start(SandboxSpec(image="i"))
        with pytest.raises(SandboxError, match="cannot grade problems with worker_command") as caught:
            sandbox.answer_cases("true", ["a"], timeout_s=1, most_bytes=10, env={})
        assert caught.value.type == "no_cases"


@pytest.mark.parametrize(
    ("answer", "cases"), [((404, b"{}"), False), ((200, b"{}"), False), ((200, b'{"cases": true}'), True)]
)
def test_a_service_tells_whether_its_sandboxes_answer_cases(answer, cases):
    with RawServer(lambda headers, body: answer) as server, RemoteHost(address(server)) as host:
        assert (host.cases_fault() is None) == cases


def test_a_service_that_is_not_there_yet_is_no_fault():
    with RemoteHost("127.0.0.1:1") as host:
        assert host.cases_fault() is None


def test_another_service_is_understood():
    server, sent = raw([(200, STARTED), done()])
    spec = SandboxSpec(image="i", cwd="/app", env={"A": "1"}, timeout_s=2.5)
    with server, RemoteHost(address(server)) as host:
        sandbox = host.start(spec)
        assert sandbox.id == "c0ffee"
        execution = sandbox.execute("ls", env={"B": "2"})
        assert (execution.output, execution.returncode) == ("out\n", 0)
        assert (execution.timed_out, execution.truncated, execution.killed_by) == (False, False, None)
        assert execution.seconds > 0
        host.find("other").execute("ls", cwd="/x", timeout_s=7)
    start, first, second, cleanup = sent
    assert start["config"] == {"image": "i", "cwd": "/app", "env": {"A": "1"}, "timeout": 3}
    assert {name: first[name] for name in ("container_id", "command", "cwd", "timeout", "env")} == {
        "container_id": "c0ffee", "command": "ls", "cwd": "/app", "timeout": 3, "env": {"A": "1", "B": "2"},
    }  # fmt: skip
    assert (second["container_id"], second["cwd"], second["timeout"]) == ("other", "/x", 7)
    assert cleanup == {"container_id": "c0ffee"}


def test_another_service_s_time_out_and_long_output():
    server, _ = raw([(200, STARTED), done(returncode=124), done(output="x" * 5_000_000)])
    with server, RemoteHost(address(server)) as host:
        sandbox = host.start(SandboxSpec(image="i", limits=Limits(output_bytes=1000)))
        assert not sandbox.execute("timeout 1 sleep 2").timed_out  # the command's own 124
        execution = sandbox.execute("yes")
        assert execution.truncated
        assert len(execution.output) < 1100


@pytest.mark.parametrize(
    ("answer", "type_"),
    [
        ((500, b'{"detail": "broken"}'), "http_500"),
        ((502, b"<html>bad gateway"), "http_502"),
        ((401, b"{}"), "http_401"),
        ((404, b'{"detail": "no such container"}'), "unknown_sandbox"),
        ((200, b"not json"), "malformed_answer"),
        ((200, b"[1]"), "malformed_answer"),
        ((200, b'{"output": "x"}'), "malformed_answer"),
        ((200, b'{"output": 1, "returncode": 0}'), "malformed_answer"),
        ((200, b'{"output": "x", "returncode": true}'), "malformed_answer"),
        ((200, b'{"output": "x", "returncode": 0, "truncated": "perhaps"}'), "malformed_answer"),
    ],
)
def test_a_command_that_failed_on_the_way_is_sent_once(answer, type_):
    server, sent = raw([answer])
    with server, RemoteHost(address(server)) as host, pytest.raises(SandboxError) as caught:
        host.find("c").execute("rm -rf .")
    assert caught.value.type == type_
    assert len(sent) == 1


def test_a_reset_connection_is_no_result():
    def answer(connection, number):
        read_request(connection)
        reset(connection)

    with RawTCP(answer) as server, RemoteHost(server.address) as host:
        with pytest.raises(SandboxError) as caught:
            host.find("c").execute("ls")
        assert (caught.value.type, server.connections) == ("connection", 1)


def test_a_cut_off_answer_is_no_result():
    def answer(connection, number):
        read_request(connection)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"output": "", "returncode": 0}')

    with RawTCP(answer) as server, RemoteHost(server.address) as host:
        with pytest.raises(SandboxError) as caught:
            host.find("c").execute("ls")
        assert caught.value.type == "connection"


@pytest.mark.parametrize("drip", [False, True])
def test_an_answer_that_is_too_slow_is_no_result(drip):
    def answer(connection, number):
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" if drip else b"")
        for _ in range(60):
            time.sleep(0.1)
            if drip:
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    with (
        RawTCP(answer) as server,
        RemoteHost(server.address, slack_s=0.5) as host,
        pytest.raises(SandboxError) as caught,
    ):
        host.find("c").execute("ls", timeout_s=0.5)
    assert caught.value.type == "timeout"


def test_a_start_is_sent_again_with_the_same_id(monkeypatch):
    monkeypatch.setattr("rollmill.inference.http_service.backoff_s", lambda retry: 0.01 * retry)
    server, sent = raw([(500, b"{}"), (429, b"{}"), (200, STARTED)])
    with server, RemoteHost(address(server), max_retries=2) as host:
        assert host.start(PLAIN).id == "c0ffee"
        starts = [body["request_id"] for body in sent]
        assert len(starts) == 3
        assert len(set(starts)) == 1
        host.start(PLAIN)
        assert sent[-1]["request_id"] != starts[0]


def test_a_start_that_fails_for_good(monkeypatch):
    monkeypatch.setattr("rollmill.inference.http_service.backoff_s", lambda retry: 0.01)
    server, sent = raw([(500, b'{"detail": "no disk"}')])
    with server, RemoteHost(address(server), max_retries=2) as host:
        with pytest.raises(SandboxError, match="no disk") as caught:
            host.start(PLAIN)
        assert (caught.value.type, len(sent)) == ("http_500", 3)


def test_a_full_service_costs_no_retry():
    full = (503, b'{"detail": "full"}', {"Retry-After": "0.05"})
    server, sent = raw([full] * 10 + [(200, STARTED)])
    with server, RemoteHost(address(server), max_retries=0) as host:
        host.start(PLAIN)
        assert len(sent) == 11
    server, sent = raw([full])
    with server, RemoteHost(address(server), max_retries=0, patience_s=0.3) as host:
        with pytest.raises(SandboxError) as caught:
            host.start(PLAIN)
        assert caught.value.type == "http_503"
        assert 2 < len(sent) <= 7


@pytest.mark.parametrize(
    ("status", "says"), [(400, "no image"), (401, "set ROLLMILL_SANDBOX_TOKEN"), (422, "no image")]
)
def test_client_error_of_the_service_is_an_input_error(status, says):
    server, sent = raw([(status, b'{"detail": "no image"}')])
    with server, RemoteHost(address(server)) as host, pytest.raises(InputError, match=says):
        host.start(PLAIN)
    assert len(sent) == 1


@pytest.mark.parametrize("status", [301, 405, 409, 413, 414, 415, 431])
def test_what_the_service_refuses_otherwise_is_a_failure_outside(status):
    server, sent = raw([(status, b'{"detail": "another image"}')])
    with server, RemoteHost(address(server)) as host, pytest.raises(SandboxError, match="another image") as caught:
        host.start(PLAIN)
    assert (caught.value.type, len(sent)) == (f"http_{status}", 1)


def test_closing_gives_up_on_a_full_service(monkeypatch):
    monkeypatch.setattr("rollmill.sandboxes.remote._CLEANUP_PATIENCE_S", 0.3)
    server, sent = raw([(503, b'{"detail": "full"}', {"Retry-After": "0.05"})])
    with server, RemoteHost(address(server)) as host:
        host.find("c").close()
    assert 2 < len(sent) <= 7


@pytest.mark.parametrize(("command", "cwd"), [("true" + " " * 200_000, ""), ("true", "/x" * 3000), ("a\0b", "")])
def test_a_command_that_no_process_can_have_is_not_sent(command, cwd):
    server, sent = raw([done()])
    with server, RemoteHost(address(server)) as host:
        assert host.find("c").execute(command, cwd=cwd).returncode == 126
    assert sent == []


def test_only_graders_send_the_grading_key(monkeypatch):
    monkeypatch.setenv("ROLLMILL_GRADING_KEY", "canary")
    server, sent = raw([(200, STARTED)])
    with server, RemoteHost(address(server)) as agents, RemoteHost(address(server), for_grading=True) as graders:
        agents.start(PLAIN)
        graders.start(PLAIN)
    assert "X-Rollmill-Grading-Key" not in server.headers[0]
    assert server.headers[1]["X-Rollmill-Grading-Key"] == "canary"
    assert "canary" not in repr(sent)


def test_missing_grading_key_is_reported_once(monkeypatch, caplog):
    monkeypatch.delenv("ROLLMILL_GRADING_KEY", raising=False)
    server, _ = raw([(200, b'{"container_id": "c", "for_grading": false}')])
    with server, RemoteHost(address(server), for_grading=True) as graders:
        graders.start(PLAIN)
        graders.start(PLAIN)
    assert [record.message for record in caplog.records if "ROLLMILL_GRADING_KEY" in record.message] == [
        f"http://{address(server)} gives none of the slots that it reserves for grading: agents may hold all others "
        "until they are graded. Set ROLLMILL_GRADING_KEY to the same value here and at the service"
    ]


@pytest.mark.parametrize("token", ["sécret", "a\nb"])
def test_invalid_token_is_refused_without_showing_it(token):
    with pytest.raises(InputError, match="printable ASCII") as caught:
        RemoteHost("host:1", token=SecretStr(token))
    assert token not in str(caught.value)


@pytest.mark.parametrize("answer", [b"{}", b'{"container_id": ""}', b'{"container_id": 5}'])
def test_a_start_without_an_id_is_a_failure(answer):
    server, _ = raw([(200, answer)])
    with server, RemoteHost(address(server)) as host, pytest.raises(SandboxError, match="container_id"):
        host.start(PLAIN)


def test_unreachable_service_is_a_connection_error():
    with RawTCP(lambda connection, number: None) as server:
        nobody = server.address
    with RemoteHost(nobody, max_retries=0) as host:
        with pytest.raises(SandboxError, match="no service answers") as caught:
            host.start(PLAIN)
        assert caught.value.type == "connection"
        host.find("c").close()  # says so, and does not raise


def test_closing_ends_a_start_waiting_for_its_retry():
    server, sent = raw([(500, b"{}")])
    with server:
        host = RemoteHost(address(server))
        waiting = in_thread(lambda: host.start(PLAIN))
        wait_until(lambda: sent)
        host.close()
        assert isinstance(waiting(), SandboxError)
        assert len(sent) == 1
    with pytest.raises(SandboxError) as caught:
        host.find("c").execute("ls")
    assert caught.value.type == "closed"


def test_the_token_is_sent_and_not_shown():
    server, _ = raw([(200, STARTED)])
    with server, RemoteHost(address(server), token=SecretStr("canary")) as host:
        host.start(PLAIN)
        assert server.headers[0]["Authorization"] == "Bearer canary"
        assert "canary" not in repr(vars(host))


def test_no_proxy_comes_between(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server, _ = raw([(200, STARTED)])
    with server, RemoteHost(address(server)) as host:
        host.start(PLAIN)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("host:9527", "http://host:9527"),
        (" 10.0.0.1:1/ ", "http://10.0.0.1:1"),
        ("https://host/sandboxes/", "https://host/sandboxes"),
        ("[::1]:9527", "http://[::1]:9527"),
    ],
)
def test_addresses(text, url):
    assert service_url(text) == url


@pytest.mark.parametrize(
    "text", ["", "http://", "ftp://host", "host:port", "http://user:pass@host", "host:99999", "a b"]
)
def test_invalid_address_is_refused(text):
    with pytest.raises(InputError, match="is not the address of a service"):
        service_url(text)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service("sandbox", "--images", make_images(tmp_path_factory.mktemp("remote") / "images")) as running:
        yield running


@pytest.mark.slow
def test_a_start_whose_answer_was_lost_leaks_nothing(service):
    with losing_answers(service, 2) as network, RemoteHost(network.address) as host:
        sandbox = host.start(PLAIN)
        assert network.connections == 3
        assert service.counts()["sandboxes"] == 1
        assert sandbox.execute("cat word.txt").output == "hello\n"
    assert service.counts()["sandboxes"] == 0


@pytest.mark.slow
def test_a_command_whose_answer_was_lost_ran_once(service):
    with service.remote() as near:
        sandbox = near.start(PLAIN)
        with losing_answers(service, 1) as network, RemoteHost(network.address) as far:
            with pytest.raises(SandboxError):
                far.find(sandbox.id).execute("echo once >> log")
            assert network.connections == 1
        assert sandbox.execute("cat log").output == "once\n"


@pytest.mark.slow
def test_a_sandbox_is_found_by_another_client(service):
    with service.remote() as item, service.remote() as other:
        sandbox = item.start(PLAIN)
        sandbox.execute("echo left > here")
        assert other.find(sandbox.id).execute("cat here").output == "left\n"
        other.close()
        assert sandbox.execute("cat here").output == "left\n"
        item.find(sandbox.id).close()
        with pytest.raises(SandboxError) as caught:
            sandbox.execute("true")
        assert caught.value.type == "unknown_sandbox"


@pytest.mark.slow
def test_files_go_in_and_come_out(service):
    data = bytes(range(256)) * 2000
    with service.remote() as host:
        sandbox = host.start(PLAIN)
        write_file(sandbox, "/workspace/a b/data", data)
        assert read_file(sandbox, "/workspace/a b/data", most=10**6) == data


@pytest.mark.slow
def test_closing_a_host_closes_what_it_started_and_no_more(service):
    with service.remote() as other:
        kept = other.start(PLAIN)
        with service.remote() as host:
            for _ in range(3):
                host.start(PLAIN)
            assert service.counts()["sandboxes"] == 4
        assert service.counts()["sandboxes"] == 1
        assert kept.execute("true").returncode == 0


@pytest.mark.slow
def test_an_image_that_is_not_there_is_the_user_s(service):
    with service.remote() as host, pytest.raises(InputError, match="image 'absent'"):
        host.start(SandboxSpec(image="absent"))
