"""Middleware of the services: authentication, limits on requests, and errors in one line."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollmill.sandboxes.grading_key import KEY_HEADER
from rollmill.services import bounds
from rollmill.services.http_protocol import BoundedProtocol

OPEN_PATH = "/health"
"""Answers without a token."""
_COME_AGAIN = {"Retry-After": "1"}
_HOST = re.compile(r"(?:(localhost)|(\d{1,3}(?:\.\d{1,3}){3})|\[([0-9a-f:.]{2,45})\])(?::\d{1,5})?", re.ASCII)
_BODILESS = frozenset({"GET", "HEAD"})


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response; orjson encodes NaN and infinity as null."""
    return Response(orjson.dumps(content), status, headers, "application/json")


def failure(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error response with one line of bounded length."""
    shown = "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in detail[: bounds.SHOWN])
    return json_response({"detail": shown}, status, headers)


def guard(app: FastAPI, token: SecretStr | None, grading_keys: Iterable[SecretStr] = ()) -> None:
    """Add limits, authentication and error responses (`{"detail": "..."}`) to an application.

    Without a token only requests to a loopback host are accepted; with one, requests that carry it, and `/health`. A
    request that carries one of the `grading_keys` is a grader's: see `is_grader`.
    """
    app.add_middleware(_Guard, token=token, grading_keys=list(grading_keys))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return failure(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        messages = (f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg']}" for fault in error.errors())
        return failure(422, "; ".join(messages))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return failure(500, f"{type(error).__name__} in the service; its log says where")


def is_grader(request: Request) -> bool:
    """Return whether a request carries a grading key."""
    return bool(request.state.grader)


class _RefusedError(Exception):
    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = failure(status, detail, headers)


class _ClientDisconnectedError(Exception):
    pass


class _Guard:
    """ASGI middleware: refuses unauthorized requests, and reads and checks bodies before the application sees them."""

    def __init__(self, app: ASGIApp, token: SecretStr | None, grading_keys: Sequence[SecretStr]) -> None:
        self._app = app
        self._expected = f"Bearer {token.get_secret_value()}".encode() if token else None
        self._keys = [key.get_secret_value().encode() for key in grading_keys]
        self._in_progress = 0
        self._bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        self._in_progress += 1
        body = bytearray()
        try:
            self._check(scope)
            if scope["method"] not in _BODILESS:
                await self._read(receive, body, grader=scope["state"]["grader"])
                _check_json(body)
            return await self._app(scope, _replaying(bytes(body), receive), send)
        except _RefusedError as refused:
            return await refused.response(scope, receive, send)
        except _ClientDisconnectedError:
            return None
        finally:
            self._in_progress -= 1
            self._bodies -= len(body)

    def _check(self, scope: Scope) -> None:
        """Check a request before its body is read. Raises `_RefusedError`."""
        if not scope["path"].startswith("/"):
            raise _RefusedError(400, "the request's target must be a path")
        headers = _headers(scope)
        if self._expected is None:
            _check_local(headers)
        elif scope["path"] != OPEN_PATH:
            credentials = headers.get(b"authorization", [])
            if len(credentials) != 1 or not hmac.compare_digest(credentials[0], self._expected):
                raise _RefusedError(401, "no token, or not the right one", {"WWW-Authenticate": "Bearer"})
        key = b"".join(headers.get(KEY_HEADER.lower().encode(), []))
        grader = any(hmac.compare_digest(key, grading_key) for grading_key in self._keys)
        scope.setdefault("state", {})["grader"] = grader
        # Graders get a reserve, and `/health` has no limit: it answers however busy the service is.
        most = BoundedProtocol.most_connections * (6 if grader else 5) // 8
        if self._in_progress > most and scope["path"] != OPEN_PATH:
            raise _RefusedError(503, f"{most} requests are in progress: come again", _COME_AGAIN)
        if scope["method"] not in _BODILESS:
            _check_body_headers(headers)

    async def _read(self, receive: Receive, body: bytearray, *, grader: bool) -> None:
        most = bounds.BODIES_BYTES * (8 if grader else 6) // 8  # with the same reserve for graders
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientDisconnectedError
            piece = message.get("body", b"")
            if len(body) + len(piece) > bounds.BODY_BYTES:
                raise _RefusedError(413, f"a body of more than {bounds.BODY_BYTES} bytes")
            if self._bodies + len(piece) > most:
                raise _RefusedError(503, "too much is being sent to this service: come again", _COME_AGAIN)
            body += piece
            self._bodies += len(piece)
            more = message.get("more_body", False)


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    headers: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, []).append(value)
    return headers


def _check_local(headers: Mapping[bytes, list[bytes]]) -> None:
    """Check that a request without a token is local.

    By the Host header, against DNS rebinding: a web page may use a name of its own that resolves to loopback.
    """
    hosts = headers.get(b"host", [])
    if len(hosts) != 1 or not is_loopback_host(hosts[0].decode("latin-1")):
        shown = b", ".join(hosts).decode("latin-1")[: bounds.ID_LENGTH]
        raise _RefusedError(403, f"Host {shown!r} is refused: without a token this service accepts 127.0.0.1 only")
    if b"origin" in headers:
        raise _RefusedError(403, "requests of web pages are refused: this service has no token")


def is_loopback_host(host: str) -> bool:
    """Return whether the value of a Host header names this machine by a loopback address or as localhost."""
    match = _HOST.fullmatch(host.lower())
    if not match:
        return False
    try:
        return bool(match[1]) or ipaddress.ip_address(match[2] or match[3]).is_loopback
    except ValueError:
        return False


def _check_body_headers(headers: Mapping[bytes, list[bytes]]) -> None:
    if b"transfer-encoding" not in headers and headers.get(b"content-length", [b"0"]) == [b"0"]:
        return
    for encoding in headers.get(b"content-encoding", []):
        if encoding.strip().lower() not in {b"", b"identity"}:
            raise _RefusedError(415, "compressed bodies are refused: send JSON as it is")
    kind = b"".join(headers.get(b"content-type", [])).partition(b";")[0].strip().lower()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        raise _RefusedError(415, "a body must be of Content-Type application/json")
    for length in headers.get(b"content-length", []):
        if not length.isdigit() or len(length) > 20 or int(length) > bounds.BODY_BYTES:
            raise _RefusedError(413, f"a body of more than {bounds.BODY_BYTES} bytes")


def _check_json(body: bytearray) -> None:
    if not body:
        return
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _RefusedError(422, f"body: no JSON: {error}") from None
    if not isinstance(content, dict):
        raise _RefusedError(422, "body: no JSON object")


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body again, then waits for the client's disconnect."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
