"""Ports: taking one that stays ours, and saying who holds one that is not."""

from __future__ import annotations

import socket

import psutil

from rollmill.errors import ServingError

LOOPBACK = "127.0.0.1"


class PortReservation:
    """A port that no other program can take before the server that is being started does.

    The socket is bound and never listens, with SO_REUSEADDR: a server that sets the same option, as uvicorn and vLLM
    do, can bind and listen on the port all the same, while the system gives it to nobody who asks for any free port.
    """

    def __init__(self, port: int | None) -> None:
        """Take `port`, or a free one for None. Raises `ServingError` naming the holder of a port in use."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((LOOPBACK, port or 0))
        except OSError as error:
            self._socket.close()
            raise ServingError(
                f"port {port} cannot be taken ({error.strerror}): {holder(port or 0)} holds it; "
                "give another --model_port, or leave it out for a free one"
            ) from error
        self.port: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give the port back."""
        self._socket.close()


def holder(port: int) -> str:
    """Return who listens on a local TCP port, as far as this user may know."""
    for connection in psutil.net_connections(kind="tcp"):
        if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
            if connection.pid is None:
                break
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())
            except psutil.Error:
                command = "?"
            return f"process {connection.pid} ({command[:120]})"
    return "another program, of another user or just ended,"
