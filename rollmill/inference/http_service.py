"""A client's side of the services: requests, and what can go wrong on the way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, SecretStr

from rollmill.errors import InputError, ServingError
from rollmill.inference.answer_body import PLAIN, AnswerBody, AnswerError, check_redirect, words_of
from rollmill.inference.backoff import backoff_s, parse_retry_after
from rollmill.inference.deadline import DeadlineBackend, until
from rollmill.terminal.escapes import visible, visible_line
from rollmill.terminal.stall_watch import TimedStep

_LASTING = frozenset({"answer_too_large", "content_encoding", "redirect"})
_CONNECT_S = 10.0
_MOST_SHOWN = 1000
_STATUS_S = 10.0
# Below the 5 s after which uvicorn drops an idle connection: a command must not meet a closing one.
_KEEPALIVE_S = 4.0


class CallFailedError(Exception):
    """A request that got no usable answer. `type` is a word to count by."""

    def __init__(
        self,
        type_: str,
        message: str,
        *,
        status: int | None = None,
        reached: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(visible(" ".join(message.split()))[:1000])
        self.type = type_
        self.status = status
        self.reached = reached
        """Whether the service may have begun to act on it."""
        self.retry_after_s = retry_after_s

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        if self.type in _LASTING:
            return False
        return self.status is None or self.status in {408, 429} or self.status >= 500

    @property
    def full(self) -> bool:
        """The service is well, and asks to come again."""
        return self.status in {429, 503} and self.retry_after_s is not None


class ServiceConfig(BaseModel):
    """Where a service is, and the key to it."""

    model_config = ConfigDict(frozen=True)

    address: str
    token: SecretStr | None = None

    def describe(self) -> str:
        """Return what is there, in one line. Raises `ServingError` where nothing answers or the token is refused."""
        connection = ServiceConnection(self.address, self.token)
        try:
            status = connection.get("/status", timeout_s=_STATUS_S)
        except CallFailedError as error:
            if error.status != 404:
                raise ServingError(str(error)) from error
            return f"{connection.url}: a server answers, which says nothing of itself"
        finally:
            connection.close()
        return (
            f"{connection.url}: "
            + visible_line(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in status.items()))[
                :_MOST_SHOWN
            ]
        )


class ServiceConnection:
    """Connections to one service, for many threads."""

    def __init__(self, address: str, token: SecretStr | None = None) -> None:
        """`address`: `host:port` or a URL. Raises `InputError` for what is neither, and for what is no token."""
        self.url = service_url(address)
        headers = {"Content-Type": "application/json", **PLAIN}
        if token:
            headers["Authorization"] = f"Bearer {as_header(token, 'the token')}"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEEPALIVE_S)
        # A proxy set for downloads must not come between this machine and a service on it.
        transport = httpx.HTTPTransport(limits=limits, trust_env=False)
        transport._pool._network_backend = DeadlineBackend()  # httpx has no way to hand one over
        self._client = httpx.Client(headers=headers, transport=transport, trust_env=False)
        self._lock = threading.Lock()
        self._under_way = 0
        self._closing = threading.Event()

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._closing.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until `close` or `stop_waiting`; return whether that was it."""
        return self._closing.wait(seconds)

    def stop_waiting(self) -> None:
        """From now on nothing is sent a second time."""
        self._closing.set()

    def close(self) -> None:
        """Give the connections back, at the latest when the last request under way has ended."""
        self._closing.set()
        with self._lock:
            if not self._under_way:
                self._client.close()

    def get(self, path: str, *, timeout_s: float) -> dict[str, Any]:
        """Return the JSON object at a path. Raises `CallFailedError`."""
        return self._send("GET", path, None, timeout_s, None)

    def post(
        self, path: str, body: dict[str, Any], *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the JSON object that answers `body`, sent once, with more `headers`. Raises `CallFailedError`."""
        return self._send("POST", path, body, timeout_s, headers)

    def post_again(
        self,
        path: str,
        body: dict[str, Any],
        *,
        timeout_s: float,
        retries: int,
        wanted: Callable[[CallFailedError], bool],
        patience_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Post, and send again after failures that are `wanted`; a service that is full costs no retry.

        Gives up `patience_s` after the beginning.
        """
        deadline = time.monotonic() + patience_s
        failures = 0
        while True:
            try:
                return self.post(path, body, timeout_s=timeout_s, headers=headers)
            except CallFailedError as failure:
                failures += not failure.full
                if not wanted(failure) or failures > retries:
                    raise
                pause = backoff_s(failures - 1) if failure.retry_after_s is None else failure.retry_after_s
                if time.monotonic() + pause > deadline:
                    raise
                with TimedStep(pause):
                    if self.wait(pause):
                        raise

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        timeout_s: float,
        headers: Mapping[str, str] | None,
    ) -> dict[str, Any]:
        with self._lock:
            if self._client.is_closed:
                raise CallFailedError("closed", f"{self.url}: this client is closed", reached=False)
            self._under_way += 1
        try:
            with TimedStep(timeout_s):
                return self._exchange(method, path, body, timeout_s, headers)
        finally:
            with self._lock:
                self._under_way -= 1
                if self._closing.is_set() and not self._under_way:
                    self._client.close()

    def _exchange(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        timeout_s: float,
        headers: Mapping[str, str] | None,
    ) -> dict[str, Any]:
        where = f"{self.url}{path}"
        timeout = httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s), pool=None)
        content = None if body is None else orjson.dumps(body)
        try:
            with (
                until(time.monotonic() + timeout_s),
                self._client.stream(method, where, content=content, timeout=timeout, headers=headers) as response,
            ):
                answer = _read(response, where)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise CallFailedError("connection", f"no service answers at {self.url}: {error}", reached=False) from None
        except httpx.TimeoutException:
            raise CallFailedError("timeout", f"{where} did not answer within {timeout_s:g} s") from None
        except AnswerError as error:
            raise CallFailedError(error.type, str(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CallFailedError("connection", f"{where}: {str(error) or type(error).__name__}") from None
        return _understood(response, answer, where)


def service_url(address: str) -> str:
    """Return the URL, without a slash at its end, of `host:port` or of a URL.

    Raises `InputError` for what is neither.
    """
    address = address.strip()
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable or any(mark in url for mark in " ?#@"):
        shown = address.rpartition("@")[2]  # what stands before may be a password
        raise InputError(f"{shown!r} is no address of a service: give host:port, or a URL without user and query")
    return url


def as_header(secret: SecretStr, what: str) -> str:
    """Return a secret as a header's value. Raises `InputError`, which does not show it, where it cannot be one."""
    value = secret.get_secret_value()
    if not value.isascii() or not value.isprintable():
        raise InputError(f"{what} for the service has characters other than printable ASCII: set another on both sides")
    return value


def token_from_environment(variable: str) -> SecretStr | None:
    """Return the token that a variable of the environment holds; None for none."""
    value = os.environ.get(variable, "").strip()
    return SecretStr(value) if value else None


def _read(response: httpx.Response, where: str) -> bytes:
    check_redirect(where, response.status_code, response.headers.get("Location"))
    try:
        answer = AnswerBody(where, response.headers)
        for piece in response.iter_raw():
            answer.add(piece)
        return answer.content()
    except AnswerError as error:
        if response.status_code == 200:
            raise
        return str(error).encode()  # of an error the status counts, which says whether to try again


def _understood(response: httpx.Response, answer: bytes, where: str) -> dict[str, Any]:
    try:
        content = orjson.loads(answer)
    except orjson.JSONDecodeError:
        content = None
    status = response.status_code
    if status != 200:
        detail = content.get("detail") if isinstance(content, dict) else None
        raise CallFailedError(
            f"http_{status}",
            f"{where} answers {status}: {words_of(detail, answer[:300])}",
            status=status,
            retry_after_s=parse_retry_after(response.headers.get("Retry-After")),
        )
    if not isinstance(content, dict):
        raise CallFailedError("malformed_answer", f"{where}: no JSON object: {answer[:100].decode(errors='replace')}")
    return content
