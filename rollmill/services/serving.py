"""What the services share: the token, errors as JSON, the address they listen at, their end."""

from __future__ import annotations

import hmac
import ipaddress
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from rollmill.errors import InputError, ServingError
from rollmill.serving.ports import holder

OPEN_PATH = "/health"
"""Answers without a token."""
_KEEP_ALIVE_S = 75
_LAST_ANSWERS_S = 3


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer; what is no UTF-8 or no finite number is not in it."""
    return Response(orjson.dumps(content), status, headers, "application/json")


def failure(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says what went wrong."""
    return json_response({"detail": detail}, status, headers)


async def until_gone(request: Request) -> None:
    """Returns when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def guard(app: FastAPI, token: SecretStr | None) -> None:
    """Adds what every path has: the token, without which only `/health` answers, and errors as `{"detail": "..."}`."""
    app.add_middleware(_TokenGuard, token=token)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        return failure(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        said = (f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors())
        return failure(422, "; ".join(said))

    @app.exception_handler(Exception)
    def bug(request: Request, error: Exception) -> Response:
        return failure(500, f"{type(error).__name__} in the service; its log says where")


class _TokenGuard:
    def __init__(self, app: ASGIApp, token: SecretStr | None) -> None:
        self._app = app
        self._expected = f"Bearer {token.get_secret_value()}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._expected is not None and scope["type"] == "http" and scope["path"] != OPEN_PATH:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                refusal = failure(401, "no token, or not the right one", {"WWW-Authenticate": "Bearer"})
                return await refusal(scope, receive, send)
        return await self._app(scope, receive, send)


def listen(host: str, port: int, token: SecretStr | None, variable: str) -> socket.socket:
    """A socket at that address; port 0 for a free one.

    Raises `InputError` for an address that others reach where there is no token, and for no address of this machine;
    `ServingError` for a port that is taken.
    """
    if token is None and not _is_loopback(host):
        raise InputError(
            f"--host {host}: others reach it, and anybody could run commands here: set {variable} in the environment, "
            "or stay on 127.0.0.1"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise InputError(f"--host {host}: {error.strerror}: give an address of this machine") from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        taken = f": {holder(port)} holds it; give another --port, or 0 for a free one" if port else ""
        raise ServingError(f"{host}:{port} cannot be listened at ({error.strerror}){taken}") from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Its URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


_ENDS = (signal.SIGTERM, signal.SIGINT)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, line: str, ending: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._line = line
        self._ending = ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        await super().startup(sockets)
        sys.stdout.write(f"{self._line}\n")
        sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._ending()
        await super().shutdown(sockets)


def serve(app: FastAPI, listening: socket.socket, what: str, ending: Callable[[], Awaitable[None]]) -> None:
    """Answers requests until SIGTERM (then raises `SystemExit`) or SIGINT (then returns).

    Writes its address and `what` it is to standard output once it answers. `ending` is called first at its end: it
    ends what requests wait for, so that they are answered.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S, timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )  # fmt: skip
    # uvicorn ends with the signal that it got: the default handler would leave the sandboxes running.
    signal.signal(signal.SIGTERM, _exit)
    # A signal now would be raised amid uvicorn's coroutines: it waits until uvicorn's own handlers are there.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        _Server(config, f"{address_of(listening)}: {what}", ending).run(sockets=[listening])
    except KeyboardInterrupt:
        sys.stderr.write("\n")


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
