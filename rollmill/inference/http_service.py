"""The synchronous client of the project's own services: sandboxes, grading, search."""

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
from rollmill.inference.answer_body import PLAIN, AnswerBody, AnswerError, check_redirect, message_text
from rollmill.inference.backoff import backoff_s, parse_retry_after
from rollmill.inference.deadline import DeadlineBackend, enforce_deadline
from rollmill.terminal.escapes import visible, visible_line
from rollmill.terminal.stall_watch import TimedStep

_LASTING = frozenset({"answer_too_large", "content_encoding", "redirect"})
"""Types of failures that a retry would repeat."""
_CONNECT_S = 10.0
_MOST_SHOWN = 1000
_STATUS_S = 10.0
# Below the 5 s after which uvicorn closes idle connections: a request must not be sent on one of those.
_KEEPALIVE_S = 4.0


class CallFailedError(Exception):
    """A request without a usable response.

    Args:
        type_: A word by which failures are counted, such as `timeout` or `http_503`.
        message: Where the request was sent, and why it failed.
        status: HTTP status of the response; None where there was none.
        reached: Whether the service may have begun to act on the request.
        retry_after_s: Seconds that the service asks to wait; None where it does not.
    """

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
        """Whether the service may have begun to act on the request."""
        self.retry_after_s = retry_after_s

    @property
    def passing(self) -> bool:
        """Return whether the same request may succeed later."""
        if self.type in _LASTING:
            return False
        return self.status is None or self.status in {408, 429} or self.status >= 500

    @property
    def full(self) -> bool:
        """Return whether the service is at capacity, and asks for a retry."""
        return self.status in {429, 503} and self.retry_after_s is not None


class ServiceConfig(BaseModel):
    """Address and token of a service."""

    model_config = ConfigDict(frozen=True)

    address: str
    token: SecretStr | None = None

    def describe(self) -> str:
        """Return the service's status in one line. Raises `ServingError` for no answer or a refused token."""
        connection = ServiceConnection(self.address, self.token)
        try:
            status = connection.get("/status", timeout_s=_STATUS_S)
        except CallFailedError as error:
            if error.status != 404:
                raise ServingError(str(error)) from error
            return f"{connection.url}: a server answers, but it has no /status"
        finally:
            connection.close()
        return (
            f"{connection.url}: "
            + visible_line(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in status.items()))[
                :_MOST_SHOWN
            ]
        )


class ServiceConnection:
    """A thread-safe connection pool to one service."""

    def __init__(self, address: str, token: SecretStr | None = None) -> None:
        """Prepare a pool; `address` is `host:port` or a URL. Raises `InputError` for another address or a bad token."""
        self.url = service_url(address)
        headers = {"Content-Type": "application/json", **PLAIN}
        if token:
            headers["Authorization"] = f"Bearer {as_header(token, 'the token')}"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEEPALIVE_S)
        # A proxy that is configured for downloads must not be used for a service on this machine.
        transport = httpx.HTTPTransport(limits=limits, trust_env=False)
        transport._pool._network_backend = DeadlineBackend()  # httpx has no parameter for it
        self._client = httpx.Client(headers=headers, transport=transport, trust_env=False)
        self._lock = threading.Lock()
        self._under_way = 0
        self._closing = threading.Event()

    @property
    def closing(self) -> bool:
        """Return whether `close` or `stop_waiting` was called."""
        return self._closing.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for some seconds; return True as soon as `close` or `stop_waiting` is called."""
        return self._closing.wait(seconds)

    def stop_waiting(self) -> None:
        """End all waiting for retries: from now on no request is sent a second time."""
        self._closing.set()

    def close(self) -> None:
        """Close the connections, at the latest when the last request in flight has ended."""
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
        """Post a JSON object once, without retries; return the JSON object of the response. Raises `CallFailedError`.

        Args:
            path: Path of the service.
            body: JSON object to send.
            timeout_s: Seconds for the whole exchange.
            headers: Additional headers.
        """
        return self._send("POST", path, body, timeout_s, headers)

    def post_again(
        self,
        path: str,
        body: dict[str, Any],
        *,
        timeout_s: float,
        retries: int,
        retry_if: Callable[[CallFailedError], bool],
        patience_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Post with retries; return the JSON object of the response. Raises the last `CallFailedError`.

        Args:
            path: Path of the service.
            body: JSON object to send.
            timeout_s: Seconds for each attempt.
            retries: Number of retries; attempts that a service at capacity refuses do not count.
            retry_if: Returns whether a failure is to be retried.
            patience_s: Seconds from the beginning after which no retry is started.
            headers: Additional headers.
        """
        deadline = time.monotonic() + patience_s
        failures = 0
        while True:
            try:
                return self.post(path, body, timeout_s=timeout_s, headers=headers)
            except CallFailedError as failure:
                failures += 0 if failure.full else 1
                if not retry_if(failure) or failures > retries:
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
        """Send one request, and count it as in flight.

        Args:
            method: HTTP method.
            path: Path of the service.
            body: JSON object to send; None for none.
            timeout_s: Seconds for the whole exchange.
            headers: Additional headers.
        """
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
        """Send one request, and translate what can go wrong into `CallFailedError`.

        Args:
            method: HTTP method.
            path: Path of the service.
            body: JSON object to send; None for none.
            timeout_s: Seconds for the whole exchange.
            headers: Additional headers.
        """
        where = f"{self.url}{path}"
        timeout = httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s), pool=None)
        content = None if body is None else orjson.dumps(body)
        try:
            with (
                enforce_deadline(time.monotonic() + timeout_s),
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
        return _json_object(response, answer, where)


def service_url(address: str) -> str:
    """Return the URL of `host:port` or of a URL, without a trailing slash. Raises `InputError` for anything else."""
    address = address.strip()
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable or any(mark in url for mark in " ?#@"):
        shown = address.rpartition("@")[2]  # the part before may be a password
        raise InputError(f"{shown!r} is not the address of a service: give host:port, or a URL without user and query")
    return url


def as_header(secret: SecretStr, what: str) -> str:
    """Return a secret as a header's value. Raises `InputError`, without showing it, where it has invalid characters."""
    value = secret.get_secret_value()
    if not value.isascii() or not value.isprintable():
        raise InputError(f"{what} for the service has characters other than printable ASCII: set another on both sides")
    return value


def token_from_environment(variable: str) -> SecretStr | None:
    """Return the token in an environment variable; None where it is not set or empty."""
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
        return str(error).encode()  # for an error status, which decides on retries, the reason replaces the body


def _json_object(response: httpx.Response, answer: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object of a response. Raises `CallFailedError` for other content, and for an error status."""
    try:
        content = orjson.loads(answer)
    except orjson.JSONDecodeError:
        content = None
    status = response.status_code
    if status != 200:
        detail = content.get("detail") if isinstance(content, dict) else None
        raise CallFailedError(
            f"http_{status}",
            f"{where} answers {status}: {message_text(detail, answer[:300])}",
            status=status,
            retry_after_s=parse_retry_after(response.headers.get("Retry-After")),
        )
    if not isinstance(content, dict):
        raise CallFailedError(
            "malformed_answer", f"{where}: not a JSON object: {answer[:100].decode(errors='replace')}"
        )
    return content
