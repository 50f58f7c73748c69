"""Connections that stall, drip or flood: real sockets against a service in a separate process."""

from __future__ import annotations

import json
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from rollmill.sandboxes.grading_key import KEY_HEADER
from tests.services.running import reset
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

PROGRAM = """
import resource, sys
from rollmill.services import bounds
settings = dict(pair.split("=") for pair in sys.argv[1:])
files = int(settings.pop("files"))
for name, value in settings.items():
    setattr(bounds, name, type(getattr(bounds, name))(value))
resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, 64), files))

import asyncio
from fastapi import FastAPI, Request
from pydantic import SecretStr
from rollmill.services.guard import guard
from rollmill.services.serving import listen, serve

app = FastAPI(openapi_url=None)
guard(app, None, [SecretStr("key")])

@app.get("/health")
async def health():
    return {"status": "ok"}

@app.post("/echo")
async def echo(request: Request, body: dict):
    await asyncio.sleep(body.get("wait", 0))
    return {"bytes": len(await request.body()), "padding": "x" * body.get("answer", 0)}

async def ending():
    pass

with listen("127.0.0.1", 0, None, "TOKEN") as listening:
    serve(app, listening, "echo", ending)
"""


class Echo:
    """Run a service of one path with lower limits."""

    def __init__(self, **settings):
        limits = {"files": 8192, "HEAD_S": 2.0, "BODY_S": 2.0, "REFUSED_BODY_S": 1.0, "CLOSE_S": 1.0, "ANSWER_S": 2.0}
        arguments = [f"{name}={value}" for name, value in {**limits, **settings}.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline().split(": ")[0].rsplit(":", 1)[1])
        self.clients = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clients.close()
        if self.process.returncode is None:
            assert self.end() == ""

    def end(self):
        """End it by SIGTERM; return its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=20)
        assert self.process.returncode == 128 + signal.SIGTERM
        return log

    def connect(self, data=b""):
        client = self.clients.enter_context(socket.create_connection(("127.0.0.1", self.port)))
        client.settimeout(20)
        client.sendall(data)
        return client

    def is_well(self):
        with httpx.Client(trust_env=False, timeout=5, verify=False) as client:
            return client.get(f"http://127.0.0.1:{self.port}/health").json() == {"status": "ok"}

    def connections(self):
        return len(self._remote_ports())

    def holds(self, client):
        return client.getsockname()[1] in self._remote_ports()

    def _remote_ports(self):
        result = psutil.Process(self.process.pid).net_connections("tcp")
        return [
            connection.raddr.port for connection in result if connection.raddr and connection.status == "ESTABLISHED"
        ]


def head(length=None, *, path="/echo", more=()):
    """A request's head."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, *([f"Content-Length: {length}"] if length is not None else []), "", ""]).encode()


def read_to_end(client):
    """Read until the service closes the connection."""
    data = b""
    while True:
        try:
            piece = client.recv(65536)
        except ConnectionResetError:
            return data
        if not piece:
            return data
        data += piece


def read_answer(client):
    """Read the first answer that has a body; b"" if the service closes the connection without one."""
    data = b""
    while True:
        if data.startswith(CONTINUE):
            data = data[len(CONTINUE) :]
        begin, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", begin)
        if length and len(body) >= int(length[1]):
            return data[: len(begin) + 4 + int(length[1])]
        piece = client.recv(65536)
        if not piece:
            return data
        data += piece


def replace_answered(echo, clients, data):
    """Return clients whose request is pending: those that were refused, being the last to arrive, are replaced."""
    answered = select.select(clients, [], [], 0)[0]
    return [echo.connect(data) if client in answered else client for client in clients]


def status_of(answer):
    """The status of an answer whose body is one line of JSON that says why."""
    start, _, body = answer.partition(b"\r\n\r\n")
    response = json.loads(body)
    assert list(response) == ["detail"]
    assert "\n" not in response["detail"]
    return int(start.split()[1])


@pytest.fixture(scope="module")
def echo():
    with Echo() as running:
        yield running


SILENT = [
    b"",
    b"G",
    b"POST /echo HTTP/1.1\r\n",
    b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    head(100),
    head(100) + b'{"a": ',
    head(more=["Transfer-Encoding: chunked"]) + b"5\r\nabc",
    head(100, more=["Expect: 100-continue"]),
]


def test_connections_that_go_no_further_are_ended(echo):
    clients = [(data, echo.connect(data)) for data in SILENT]
    for data, client in clients:
        answer = read_answer(client)
        assert answer == b"" or status_of(answer) == 408, data
        assert read_to_end(client) == b"", data


@pytest.mark.parametrize("data", [b"GET /health HTTP/1.1\r\nX: " + b"a" * 400, head(400) + b"{" * 400])
def test_a_request_byte_by_byte_is_ended(echo, data):
    client = echo.connect()
    sent = 0
    try:
        for byte in data:
            client.sendall(bytes([byte]))
            sent += 1
            time.sleep(0.05)
            if sent > 40:  # the first two seconds are granted: from here on the service hangs up at some time
                client.setblocking(False)
                try:
                    if client.recv(1000):
                        break
                except BlockingIOError:
                    pass
                client.setblocking(True)
    except OSError:
        pass
    assert sent < len(data)


def test_a_client_that_does_not_read_its_answer_is_ended(echo):
    body = b'{"answer": 30000000}'
    client = echo.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wait_until(lambda: echo.holds(client))
    client.sendall(head(len(body)) + body)
    wait_until(lambda: not echo.holds(client), 30)
    assert echo.is_well()


def test_an_idle_connection_is_kept_for_the_next_request(echo):
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    client = echo.connect(request)
    assert read_answer(client).startswith(b"HTTP/1.1 200")
    time.sleep(4)  # longer than a request may take to come
    client.sendall(request)
    assert read_answer(client).startswith(b"HTTP/1.1 200")


def test_a_request_that_is_being_answered_has_no_deadline(echo):
    body = b'{"wait": 4}'
    client = echo.connect(head(len(body)) + body)
    assert client.recv(1000).startswith(b"HTTP/1.1 200")


REFUSED = {
    "a long target": (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 414),
    "a long query": (b"GET /health?" + b"a" * 3000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 414),
    "a long header": (head(2, more=["X: " + "a" * 20_000]) + b"{}", 431),
    "a header of a megabyte": (head(2, more=["X: " + "a" * 1_000_000]), 431),
    "many headers": (head(2, more=[f"X{n}: 1" for n in range(200)]) + b"{}", 431),
    "no Host": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", 400),
    "no Host in HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n", 403),
    "another Host": (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    "a forwarded Host": (
        b"GET /health HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: 127.0.0.1\r\n\r\n",
        403,
    ),
    "an absolute target": (b"GET http://evil.example/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "an absolute target here": (b"GET http://127.0.0.1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "a target without path": (b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "a tunnel": (b"CONNECT evil.example:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a header without colon": (head(2, more=["nothing"]) + b"{}", 400),
    "NUL in a header": (head(2, more=["A: b\0c"]) + b"{}", 400),
    "two lengths": (head(2, more=["Content-Length: 3"]) + b"{}", 400),
    "a negative length": (head(-1), 400),
    "a length that is no number": (head("0x10"), 400),
    "a length of a hundred digits": (head("9" * 100), 400),
    "a length above the bound": (head(1 << 40), 413),
    "a chunked body above the bound": (
        head(more=["Transfer-Encoding: chunked"]) + b"500000\r\n" + b"a" * 0x500000 + b"\r\n",
        413,
    ),
    "empty lines": (b"\r\n\r\n", 400),
    "a chunk's length that is none": (head(more=["Transfer-Encoding: chunked"]) + b"zz\r\n", 400),
    "a compressed transfer": (head(more=["Transfer-Encoding: gzip, chunked"]), 400),
    "a compressed body": (head(20, more=["Content-Encoding: gzip"]), 415),
    "tiny chunks": (head(more=["Transfer-Encoding: chunked"]) + b"1\r\n \r\n" * 10_000, 413),
    "a body of another type": (head(2).replace(b"application/json", b"text/plain") + b"{}", 415),
    "a page's request": (head(2, more=["Origin: http://127.0.0.1"]) + b"{}", 403),
    "no JSON": (head(3) + b"{a}", 422),
    "JSON that is no object": (head(2) + b"[]", 422),
    "deep JSON": (head(200_000) + b'{"a":' * 40_000, 422),
    "no finite number": (head(10) + b'{"a": NaN}', 422),
    "no UTF-8": (head(9) + b'{"a":"\xff"}', 422),
    "a lone surrogate": (head(14) + b'{"a":"\\ud800"}', 422),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_request_is_refused_in_one_line(echo, name):
    data, status = REFUSED[name]
    client = echo.connect()
    with suppress(OSError):  # hung up in the middle: the answer is there all the same
        client.sendall(data)
    assert status_of(read_answer(client)) == status
    assert echo.is_well()


def test_refused_body_is_drained_for_a_limited_time(echo):
    client = echo.connect(head(1 << 40))
    assert status_of(read_answer(client)) == 413

    def send_for_ever():
        while True:
            client.sendall(b"x" * 65536)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send_for_ever()


def test_client_of_a_refused_long_body_gets_the_answer(echo):
    with httpx.Client(trust_env=False, timeout=20) as client:
        answer = client.post(f"http://127.0.0.1:{echo.port}/echo", json={"a": "x" * (16 << 20)})
        assert answer.status_code == 413
        assert "4194304 bytes" in answer.json()["detail"]


def test_request_within_the_limits_is_answered(echo):
    body = b'{"a":"' + b"x" * ((4 << 20) - 8) + b'"}'
    pieces = [body[begin : begin + 65536] for begin in range(0, len(body), 65536)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    for sent in (head(len(body)) + body, head(more=["Transfer-Encoding: chunked"]) + chunks + b"0\r\n\r\n"):
        answer = read_answer(echo.connect(sent))
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"bytes":4194304' in answer


def test_requests_in_one_piece_are_answered_one_after_another(echo):
    client = echo.connect(b"GET /health HTTP/1.1\r\nHost: localhost:1\r\n\r\n" * 50)
    data = b""
    while data.count(b'{"status":"ok"}') < 50:
        data += client.recv(65536)
    client.sendall(b"POST /echo HTT")  # and the fifty-first stalls
    assert read_answer(client).startswith(b"HTTP/1.1 408")


HOLDING = {
    "nothing": b"",
    "half a head": b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "half a body": head(100) + b"{",
}


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this machine allows fewer than 4096 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("files", [256, 1024, 8192])
def test_health_answers_while_thousands_of_connections_are_held(many_files, files):
    with Echo(files=files, HEAD_S=60, BODY_S=60) as echo:
        for number in range(2100):
            with suppress(ConnectionResetError):
                echo.connect(list(HOLDING.values())[number % 3])
            if number in {300, 2000}:
                assert echo.is_well()
        assert echo.is_well()
        assert echo.connections() <= files // 2
        # SIGTERM ends it with all of these open: see `Echo.end`.


def test_held_connections_end_by_themselves(many_files):
    with Echo(CONNECTIONS=4096) as echo:
        for data in HOLDING.values():
            for _ in range(100):
                echo.connect(data)
        wait_until(lambda: echo.connections() == 0, 20)
        assert echo.is_well()


def test_bursts_of_connections(echo):
    for _ in range(20):
        burst = [socket.create_connection(("127.0.0.1", echo.port)) for _ in range(100)]
        for number, client in enumerate(burst):
            if number % 2:
                reset(client)
            client.close()
    assert echo.is_well()


def test_requests_in_progress_leave_room_for_health():
    with Echo(files=64) as echo:  # 32 connections, of which 20 may ask
        body = b'{"wait": 3}'
        clients = [echo.connect(head(len(body)) + body) for _ in range(28)]
        assert echo.is_well()
        statuses = [read_answer(client).split()[1] for client in clients]
        assert statuses.count(b"200") == 20
        assert statuses.count(b"503") == 8


def test_all_bodies_together_are_bounded():
    with Echo(BODIES_BYTES=1_300_000, BODY_S=30) as echo:  # of which graders alone may have a quarter
        incomplete = head(900_000) + b'{"a": "' + b"x" * 800_000
        first = echo.connect(incomplete)
        while not read_answer(echo.connect(head(300_000) + b"x" * 300_000)).startswith(b"HTTP/1.1 503"):
            [first] = replace_answered(echo, [first], incomplete)
        first.sendall(b"x" * 99_991 + b'"}')
        assert read_answer(first).startswith(b"HTTP/1.1 200")
        assert read_answer(echo.connect(head(900_000) + b'{"a": "' + b"x" * 899_991 + b'"}')).startswith(
            b"HTTP/1.1 200"
        )


def test_bodies_of_others_leave_room_for_graders():
    with Echo(BODIES_BYTES=1_000_000, BODY_S=30) as echo:
        incomplete = head(200_000) + b"x" * 185_000
        pending = [echo.connect(incomplete) for _ in range(4)]
        complete = head(20_000) + b'{"a": "' + b"x" * 19_991 + b'"}'
        while not read_answer(echo.connect(complete)).startswith(b"HTTP/1.1 503"):
            pending = replace_answered(echo, pending, incomplete)
        grader = echo.connect(head(200_000, more=[f"{KEY_HEADER}: key"]) + b'{"a": "' + b"x" * 199_991 + b'"}')
        assert read_answer(grader).startswith(b"HTTP/1.1 200")


def test_files_are_raised_to_the_limit(echo):
    assert psutil.Process(echo.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (8192, 8192)


def test_it_ends_by_sigterm_with_requests_and_half_requests(many_files):
    echo = Echo(HEAD_S=60, BODY_S=60)
    with echo.clients:
        for data in HOLDING.values():
            for _ in range(300):
                echo.connect(data)
        body = b'{"answer": 30000000}'
        echo.connect(head(len(body)) + body)  # and does not read
        body = b'{"wait": 1}'
        last = echo.connect(head(len(body)) + body)
        assert echo.is_well()
        assert echo.end() == ""
        assert read_answer(last).startswith(b"HTTP/1.1 200")
