"""Runs services as processes, misbehaving clients, and a network that loses answers."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import psutil
from pydantic import SecretStr

from rollmill.sandboxes.remote import RemoteHost
from rollmill.sandboxes.sandbox import SandboxSpec

PLAIN = SandboxSpec(image="plain")


def make_images(folder):
    """An image `plain` with one file."""
    (folder / "plain").mkdir(parents=True)
    (folder / "plain" / "word.txt").write_text("hello\n")
    return folder


class Service:
    """`python -m rollmill.services.NAME` on a free port."""

    def __init__(self, name, *arguments, env=None, token=None):
        self.token = token
        variables = {name: value for name, value in os.environ.items() if not name.startswith("ROLLMILL_")}
        variables |= env or {}
        if token:
            variables[f"ROLLMILL_{name.upper()}_TOKEN"] = token
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"rollmill.services.{name}", "--port", "0", *map(str, arguments)],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.line = self.process.stdout.readline()
        if not self.line:
            _, output = self.process.communicate()
            raise AssertionError(f"the {name} service ended: {output}")
        self.url = self.line.split(": ")[0]
        self.port = int(self.url.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.returncode is None:
            self.end(signal.SIGTERM)

    def end(self, number):
        """End it; return its exit status and its output, which must have no traceback."""
        self.process.send_signal(number)
        _, output = self.process.communicate(timeout=30)
        assert "Traceback" not in output
        assert "never awaited" not in output
        return self.process.returncode, output

    def ask(self, path, body=None, *, token=None, **options):
        """A bare request."""
        token = token or self.token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Certificates, which are not needed, would be read for each client.
        with httpx.Client(trust_env=False, timeout=30, headers=headers, verify=False) as client:
            if body is None:
                return client.get(f"{self.url}{path}", **options)
            return client.post(f"{self.url}{path}", json=body, **options)

    def start(self, **more):
        """The id of a sandbox of `plain`."""
        answer = self.ask("/start", {"config": {"image": "plain"}, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()["container_id"]

    def counts(self):
        return self.ask("/status").json()

    def remote(self, **options):
        """A client."""
        return RemoteHost(self.url, token=SecretStr(self.token) if self.token else None, **options)


def marked():
    """A `sleep` that no other process is, and how to find it."""
    seconds = f"600.{time.time_ns() % 10**12:012d}"

    def living():
        infos = [process.info for process in psutil.process_iter(["pid", "cmdline", "status"])]
        ours = [info for info in infos if seconds in (info["cmdline"] or [])]
        return [info["pid"] for info in ours if info["status"] != psutil.STATUS_ZOMBIE]

    return f"sleep {seconds}", living


def in_thread(call):
    """Run a function in a thread; `join()` returns its result or raises its error."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join(seconds=30):
        thread.join(seconds)
        assert not thread.is_alive()
        return outcome[0]

    return join


@contextmanager
def raw_request(service, path, body):
    """A request whose answer nobody reads: the connection is there until the end of the block."""
    request = httpx.Request("POST", f"{service.url}{path}", json=body)
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{service.port}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(request.content)}"]
    if service.token:
        lines.append(f"Authorization: Bearer {service.token}")
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + request.content)
        yield connection


class RawTCP:
    """Calls `answer(connection, number)` for every connection made to it, in a thread each."""

    def __init__(self, answer):
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.connections = 0

    def __enter__(self):
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection, number):
        with connection:
            self._answer(connection, number)


def read_request(connection):
    """The bytes of one request with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, body = data.split(b"\r\n\r\n", 1)
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return data.split(b"\r\n\r\n", 1)[0] + b"\r\n\r\n" + body


def reset(connection):
    """Reset a connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def losing_answers(service, losses):
    """Forward connections to a service, losing the answers of the first `losses` requests."""

    def answer(connection, number):
        request = read_request(connection).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        with socket.create_connection(("127.0.0.1", service.port)) as beyond:
            beyond.sendall(request)
            data = b""
            while piece := beyond.recv(65536):
                data += piece
        if number > losses:
            connection.sendall(data)
        else:
            reset(connection)

    return RawTCP(answer)
