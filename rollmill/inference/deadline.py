"""A deadline for a whole HTTP exchange: httpx has timeouts for each read and write, but none for all of them."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore

_PIECE = 1 << 14
_thread = threading.local()


@contextmanager
def enforce_deadline(deadline: float) -> Iterator[None]:
    """Limit this thread's reads and writes through a `DeadlineBackend`, until `deadline` on the monotonic clock."""
    _thread.deadline = deadline
    try:
        yield
    finally:
        del _thread.deadline


def _remaining(timeout: float | None) -> float | None:
    deadline: float | None = getattr(_thread, "deadline", None)
    if deadline is None:
        return timeout
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise httpcore.ReadTimeout("the time for the whole exchange is over")
    return left_s if timeout is None else min(left_s, timeout)


class DeadlineBackend(httpcore.SyncBackend):
    """httpcore's network backend, with streams that respect the deadline of the thread that uses them."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect within the deadline; see the base class.

        Args:
            host: Name or address.
            port: TCP port.
            timeout: Seconds; shortened to what remains until the deadline.
            local_address: Local address to bind; None for any.
            socket_options: Options of the socket.
        """
        return _Stream(super().connect_tcp(host, port, _remaining(timeout), local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _remaining(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):  # each piece gets the time that remains, not the whole timeout
            self._stream.write(buffer[start : start + _PIECE], _remaining(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _remaining(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
