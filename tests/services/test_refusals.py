"""Requests that the services refuse: names, sizes, reused ids, reserved slots; and random requests."""

from __future__ import annotations

import socket
import unicodedata
from contextlib import suppress

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.sandboxes.grading_key import key_for
from rollmill.sandboxes.sandbox import SandboxSpec
from tests.services.running import PLAIN, Service, make_images

pytestmark = pytest.mark.slow

COMPOSED = unicodedata.normalize("NFC", "größe")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = make_images(tmp_path_factory.mktemp("refusals") / "images")
    for name in ("other", "group/nested", COMPOSED, "Upper"):
        (folder / name).mkdir(parents=True)
    (folder / "alias").symlink_to("plain")
    (folder / "outside").symlink_to("/etc")
    (folder / "group" / "up").symlink_to("../plain")
    (folder / "file").write_text("no folder\n")
    return folder


@pytest.fixture(scope="module")
def service(images):
    """A service without a token, with two slots, one of them for grading."""
    arguments = ["--images", images, "--max_sandboxes", 2, "--grading_sandboxes", 1, "--queue_s", 0.2, "--idle_s", 60]
    with Service("sandbox", *arguments, env={"ROLLMILL_GRADING_KEY": ""}) as running:
        yield running


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(trust_env=False, base_url=service.url, timeout=20) as client:
        yield client


def refusal(answer):
    """Return the one-line reason of a refusal."""
    body = answer.json()
    assert list(body) == ["detail"]
    assert body["detail"].isprintable()
    assert len(body["detail"]) < 1100
    return body["detail"]


def cleaned(service, answer):
    assert answer.status_code == 200, answer.text
    service.ask("/cleanup", {"container_id": answer.json()["container_id"]})


IMAGES = [
    "a/../plain", "./plain", "plain/.", "plain/", "/plain", "//plain", "group//nested", "group/../plain",
    "../images/plain",
    "..", ".", "/", "plain\\", "group\\nested", "plain\0", "plain\n", " plain", "plain ", "group/ nested", "group/up",
    "alias", "outside", "outside/ssh", "file", "file/x", "upper", "PLAIN", "plain\u200b", "\uff50lain", "plain\x1b[31m",
    unicodedata.normalize("NFD", COMPOSED), "plain/word.txt", "plain/word.txt/..", "%70lain", "plain?x", "~", "$HOME",
]  # fmt: skip


@pytest.mark.parametrize("name", IMAGES, ids=ascii)
def test_an_image_has_one_name(service, name):
    answer = service.ask("/start", {"config": {"image": name}})
    assert answer.status_code in {400, 422}
    assert ascii(name)[1:-1] in refusal(answer)


@pytest.mark.parametrize("name", ["plain", "group/nested", COMPOSED, "Upper"])
def test_an_image_s_own_name_is_taken(service, name):
    cleaned(service, service.ask("/start", {"config": {"image": name}}))


START = {"config": {"image": "plain"}}
LONG = {
    "image": ("/start", {"config": {"image": "x" * 256}}, "config.image"),
    "cwd of a start": ("/start", {"config": {"image": "plain", "cwd": "/x" * 3000}}, "config.cwd"),
    "variable": ("/start", {"config": {"image": "plain", "env": {"x" * 300: "y"}}}, "config.env"),
    "value": ("/start", {"config": {"image": "plain", "env": {"A": "x" * 140_000}}}, "config.env"),
    "bytes of a value": ("/start", {"config": {"image": "plain", "env": {"A": "\u20ac" * 60_000}}}, "config.env"),
    "environment": (
        "/start",
        {"config": {"image": "plain", "env": {f"A{n}": "x" * 100_000 for n in range(12)}}},
        "env",
    ),
    "variables": ("/start", {"config": {"image": "plain", "env": {f"A{n}": "x" for n in range(2000)}}}, "config.env"),
    "no variable": ("/start", {"config": {"image": "plain", "env": {"A=B": "x"}}}, "config.env"),
    "NUL in a value": ("/start", {"config": {"image": "plain", "env": {"A": "x\0"}}}, "config.env"),
    "forwarded": ("/start", {"config": {"image": "plain", "forward_env": ["x" * 300]}}, "config.forward_env"),
    "run_args": ("/start", {"config": {"image": "plain", "run_args": ["--rm"] * 200}}, "config.run_args"),
    "run_arg": ("/start", {"config": {"image": "plain", "run_args": ["x" * 5000]}}, "config.run_args"),
    "executable": ("/start", {"config": {"image": "plain", "executable": "x" * 5000}}, "config.executable"),
    "timeout": ("/start", {"config": {"image": "plain", "timeout": 1e300}}, "config.timeout"),
    "life": ("/start", {"config": {"image": "plain", "container_timeout": "9" * 400}}, "config.container_timeout"),
    "request_id": ("/start", {**START, "request_id": "x" * 201}, "request_id"),
    "client": ("/start", {**START, "client": "x" * 201}, "client"),
    "alive": ("/alive", {"client": "x" * 201}, "client"),
    "sandbox": ("/execute", {"container_id": "x" * 201, "command": "true"}, "container_id"),
    "cleanup": ("/cleanup", {"container_id": "x" * 201}, "container_id"),
    "cwd": ("/execute", {"container_id": "c", "command": "true", "cwd": "/" + "x" * 4095}, "cwd"),
    "variable of a command": ("/execute", {"container_id": "c", "command": "true", "env": {"x" * 300: ""}}, "env"),
    "timeout_s": ("/execute", {"container_id": "c", "command": "true", "timeout_s": 1e300}, "timeout_s"),
}


@pytest.mark.parametrize("what", LONG)
def test_too_long_value_is_refused_naming_its_field(service, what):
    path, body, field = LONG[what]
    answer = service.ask(path, body)
    assert answer.status_code == 422
    assert field in refusal(answer)


OTHER = {
    "image": {"config": {"image": "other"}},
    "cwd": {"config": {"image": "plain", "cwd": "/tmp"}},
    "env": {"config": {"image": "plain", "env": {"A": "1"}}},
    "timeout": {"config": {"image": "plain", "timeout": 5}},
    "limits": {**START, "limits": {"memory_mb": 64}},
    "limits above the service's": {**START, "limits": {"memory_mb": 1 << 20}},
    "client": {**START, "client": "somebody"},
    "container_timeout": {"config": {"image": "plain", "container_timeout": "1h"}},
}


@pytest.fixture(scope="module")
def started(service):
    answer = service.ask("/start", {**START, "request_id": "first"})
    yield answer.json()["container_id"]
    cleaned(service, answer)


@pytest.mark.parametrize("what", OTHER)
def test_a_request_id_is_that_of_one_request(service, started, what):
    answer = service.ask("/start", {**OTHER[what], "request_id": "first"})
    assert answer.status_code == 409
    assert what.split()[0] in refusal(answer)
    again = service.ask("/start", {"request_id": "first", "config": {"image": "plain", "env": {}, "timeout": 60}})
    assert again.json()["container_id"] == started


def test_grader_cannot_reuse_a_client_request_id(service, started):
    key = {"X-Rollmill-Grading-Key": key_for(service.url).get_secret_value()}
    answer = service.ask("/start", {**START, "request_id": "first"}, headers=key)
    assert answer.status_code == 409
    assert "for_grading" in refusal(answer)


GUESSES = ["", "x", "true", "0" * 64, "\u00e9", "Bearer x"]


@pytest.mark.parametrize("guess", GUESSES)
def test_places_for_grading_do_not_open_by_asking(service, started, guess):
    second = service.ask("/start", START)
    headers = {b"X-Rollmill-Grading-Key": guess.encode(), b"Authorization": b"Bearer x" + guess.encode()}
    for body in (START, {**START, "for_grading": True}, {"config": {**START["config"], "for_grading": True}}):
        answer = service.ask("/start", body, headers=headers)
        assert answer.status_code in {403, 503}
    cleaned(service, second)
    assert service.counts()["sandboxes"] == 1


def test_places_for_grading_open_with_the_key(service, started):
    with service.remote(patience_s=1) as agent, service.remote(for_grading=True) as grader:
        agent.start(PLAIN)
        assert grader.start(SandboxSpec(image="plain")).execute("cat word.txt").output == "hello\n"


STRANGE_HOSTS = [
    "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "10.0.0.1", "[::2]", "127.0.0.1:x",
    "127.0.0.1@evil.example", "127.0.0.1/", "2130706433", "127.1", "", "::1", "[::ffff:10.0.0.1]", "localhost.",
]  # fmt: skip


@pytest.mark.parametrize("host", STRANGE_HOSTS)
@pytest.mark.parametrize("path", ["/health", "/status"])
def test_without_a_token_only_loopback_hosts_are_answered(service, host, path):
    answer = service.ask(path, headers={"Host": host, "X-Forwarded-Host": "127.0.0.1"})
    assert answer.status_code == 403
    refusal(answer)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:1", "localhost", "LOCALHOST:80", "127.9.8.7", "[::1]", "[::1]:9527"]
)
def test_loopback_hosts_are_answered(service, host):
    assert service.ask("/health", headers={"Host": host}).json() == {"status": "ok"}


def test_with_a_token_any_host_is_answered(images):
    with Service("sandbox", "--images", images, token="secret") as service:
        assert service.ask("/status", headers={"Host": "sandboxes.example"}).status_code == 200
        for wrong in (
            {"Authorization": "Basic secret"},
            {"Authorization": "secret"},
            {"X-Token": "secret", "Authorization": ""},
        ):
            assert service.ask("/status", headers=wrong).status_code == 401
        assert service.ask("/status?token=secret", headers={"Authorization": ""}).status_code == 401
        twice = [("Authorization", "Bearer x"), ("Authorization", "Bearer secret")]
        assert httpx.get(f"{service.url}/status", headers=twice, trust_env=False).status_code == 401


def test_limits_as_low_as_they_may_be(service):
    lowest = {"memory_mb": 16, "processes": 1, "cpu_s": 1e-9, "disk_mb": 1, "output_bytes": 1000}
    answer = service.ask("/start", {**START, "limits": lowest})
    request = {"container_id": answer.json()["container_id"], "command": "echo a"}
    assert service.ask("/execute", request).status_code == 200
    cleaned(service, answer)


PATHS = ["/start", "/execute", "/cleanup", "/alive", "/status", "/health", "/evaluate_v3", "/", "/start/", "/docs"]
FIELDS = [
    "config", "image", "env", "cwd", "container_id", "command", "client", "request_id", "limits", "timeout",
    "memory_mb", "for_grading", "container_timeout",
]  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=20,
)
CONFIG = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4).map(
    lambda more: {**more, "image": more.get("image", "plain")}
)
BODIES = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"config": CONFIG | JSON, "container_id": JSON, "command": JSON}, optional={"limits": JSON, "client": JSON}
    ),
)
FEW = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def is_fine(answer):
    """Refused with a reason, or done."""
    if answer.status_code >= 400:
        refusal(answer)
    return answer.status_code < 500 or (answer.status_code == 503 and "Retry-After" in answer.headers)


@FEW
@given(path=st.sampled_from(PATHS), body=BODIES)
def test_random_json(client, path, body):
    answer = client.post(path, content=orjson.dumps(body), headers={"Content-Type": "application/json"})
    assert is_fine(answer)
    if answer.status_code == 200 and path == "/start":
        client.post("/cleanup", json={"container_id": answer.json()["container_id"]})


@FEW
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "X"]),
    path=st.sampled_from(PATHS) | st.text(st.characters(min_codepoint=33, max_codepoint=126)).map("/".__add__),
    body=st.binary(max_size=300),
    kind=st.sampled_from(["application/json", "text/plain", "application/x-www-form-urlencoded", "", 'a/b+json; x="y']),
)
def test_random_requests(client, method, path, body, kind):
    with suppress(httpx.InvalidURL):
        answer = client.request(method, path, content=body, headers={"Content-Type": kind})
        assert answer.status_code < 500
        if method != "HEAD" and answer.status_code >= 400:
            refusal(answer)


BEGINNINGS = [
    b"",
    b"GET /health HTTP/1.1\r\n",
    b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n",
]


@FEW
@given(data=st.binary(min_size=1, max_size=300), begin=st.sampled_from(BEGINNINGS))
def test_random_bytes(service, data, begin):
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client, suppress(ConnectionResetError):
        client.sendall(begin + data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        assert answer == b"" or b"HTTP/1.1 5" not in answer


def test_it_is_well_after_all_of_that(service):
    assert service.counts()["sandboxes"] <= 1
    assert service.ask("/health").json() == {"status": "ok"}
