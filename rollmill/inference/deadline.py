"""A limit for a whole exchange with a service: httpx has limits for each read and write, and none for all of them."""

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
def until(deadline: float) -> Iterator[None]:
    """Let what this thread reads and writes through a `DeadlineBackend` end by then, on the monotonic clock."""
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
    """Connects as httpcore does, to streams that keep to the deadline of the thread that uses them."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect, as the base class does, within the deadline."""
        return _Stream(super().connect_tcp(host, port, _remaining(timeout), local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _remaining(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):  # whose time counts anew for each
            self._stream.write(buffer[start : start + _PIECE], _remaining(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _remaining(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
