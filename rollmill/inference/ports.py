"""Reserve local ports for servers that are being started, and name the process that uses a port."""

from __future__ import annotations

import socket

import psutil

from rollmill.errors import ServingError

LOOPBACK = "127.0.0.1"


class PortReservation:
    """Reserves a port for a server that is being started.

    A socket is bound with SO_REUSEADDR and never listens. A server that sets the same option, as uvicorn and vLLM do,
    can still bind the port and listen, while the system does not give it to programs that ask for any free port.
    """

    def __init__(self, port: int | None) -> None:
        """Reserve `port`, or a free one for None. Raises `ServingError`, naming the process that uses the port."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((LOOPBACK, port or 0))
        except OSError as error:
            self._socket.close()
            raise ServingError(
                f"port {port} cannot be used ({error.strerror}): {holder(port or 0)} has it; "
                "give another --model_port, or leave it out for a free one"
            ) from error
        self.port: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Release the port."""
        self._socket.close()


def holder(port: int) -> str:
    """Describe the process that listens on a local TCP port, as far as this user may see it."""
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
