"""Runs a service: opens its socket, starts uvicorn, and shuts it down."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import uvicorn
from fastapi import FastAPI, Request
from pydantic import SecretStr

from rollmill.errors import InputError, ServingError
from rollmill.inference.ports import holder
from rollmill.services import bounds
from rollmill.services.http_protocol import BoundedProtocol, end_overdue, room_for_connections

_BACKLOG = 2048
_LAST_ANSWERS_S = 3
_TICKS_PER_SECOND = 10
"""How often uvicorn calls `on_tick`."""


async def wait_for_disconnect(request: Request) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def listen(host: str, port: int, token: SecretStr | None, variable: str) -> socket.socket:
    """Open a listening socket.

    Raises `InputError` for an address that is not loopback without a token, and for one that is not this machine's;
    `ServingError` for a port that is taken.

    Args:
        host: Address or name to listen at.
        port: 0 for a free one.
        token: The service's token; None for none, which allows loopback only.
        variable: Environment variable of the token, for the error message.
    """
    if token is None:
        _check_loopback(host, host, variable)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no name of a host"
        raise InputError(f"--host {host}: {reason}: give an address of this machine") from error
    if token is None:  # /etc/hosts may map even localhost to another address
        _check_loopback(host, str(address[0]), variable)
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        taken = f": {holder(port)} holds it; give another --port, or 0 for a free one" if port else ""
        raise ServingError(f"{host}:{port} cannot be listened at ({error.strerror}){taken}") from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Return its URL."""
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
        for listening in sockets or []:
            listening.listen(_BACKLOG)  # uvicorn's own is the number of connections that asyncio accepts at once
        sys.stdout.write(f"{self._line}\n")
        sys.stdout.flush()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_SECOND == 0:
            end_overdue(self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._ending()
        await super().shutdown(sockets)


def serve(app: FastAPI, listening: socket.socket, what: str, ending: Callable[[], Awaitable[None]]) -> None:
    """Answer requests until SIGTERM (then raise `SystemExit`) or SIGINT (then return).

    Args:
        app: The application.
        listening: Its socket.
        what: Description, printed after the address once the service answers.
        ending: Called first at the shutdown: it ends pending work, so that open requests are answered.
    """
    BoundedProtocol.most_connections = room = room_for_connections()
    # Clients' errors are answered but not logged: they could fill the disk.
    config = uvicorn.Config(
        app, http=BoundedProtocol, log_level="error", access_log=False, ws="none", proxy_headers=False,
        backlog=max(1, room // 16), timeout_keep_alive=bounds.KEEP_ALIVE_S, timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )  # fmt: skip
    # uvicorn raises the received signal again at its end: the default handler would leave the sandboxes running.
    signal.signal(signal.SIGTERM, _exit)
    # Blocked until uvicorn has installed its handlers: a signal now would raise inside its coroutines.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        _Server(config, f"{address_of(listening)}: {what}", ending).run(sockets=[listening])
    except KeyboardInterrupt:
        sys.stderr.write("\n")


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _check_loopback(host: str, address: str, variable: str) -> None:
    try:
        local = ipaddress.ip_address(address).is_loopback
    except ValueError:
        local = address == "localhost"
    if not local:
        raise InputError(
            f"--host {host}: others reach it, and anybody could run commands here: set {variable} in the environment, "
            "or stay on 127.0.0.1"
        )
