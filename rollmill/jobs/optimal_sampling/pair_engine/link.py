"""Sends JSON objects between two processes over a Unix socket. Imports the standard library only."""

from __future__ import annotations

import json
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self


class PairSocket:
    """One end of a connected Unix socket, of which it takes ownership."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(True)
        self._connection: Connection[Any, Any] = Connection(connected.detach())

    @classmethod
    def to(cls, path: str | Path) -> Self:
        """Connect to a listener. Raises `OSError` where there is none."""
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(path))
        return cls(connected)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message. Raises `OSError` where the other end has closed."""
        self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """Return the next message. Raises `EOFError` or `OSError` where the other end has closed."""
        message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        return message

    def has_message(self) -> bool:
        """Return whether a message has arrived, or the other end has closed."""
        return self._connection.poll()

    def close(self) -> None:
        """Close the connection: the other end gets no more messages."""
        self._connection.close()


class Listener:
    """A Unix socket to which the other process connects; the caller keeps it in a folder that only this user reads."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)

    def wait(self, timeout_s: float) -> PairSocket | None:
        """Wait for a connection; return it, or None after the timeout."""
        self._socket.settimeout(timeout_s)
        try:
            return PairSocket(self._socket.accept()[0])
        except TimeoutError:
            return None

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
