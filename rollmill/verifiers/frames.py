"""Wire format between a pool and its workers: JSON objects, each preceded by its length as 8 bytes, big-endian."""

from __future__ import annotations

from typing import Any, BinaryIO

import orjson

_PREFIX = 8


def pack(message: dict[str, Any]) -> bytes:
    """Encode a message as one frame. Raises orjson's `TypeError` for a value that JSON cannot hold."""
    payload = orjson.dumps(message)
    return len(payload).to_bytes(_PREFIX) + payload


def read(file: BinaryIO) -> dict[str, Any] | None:
    """Read the next message of a blocking file; None at its end."""
    prefix = file.read(_PREFIX)
    if len(prefix) < _PREFIX:
        return None
    length = int.from_bytes(prefix)
    payload = file.read(length)
    return _load(payload) if len(payload) == length else None


def take(buffer: bytearray, most_bytes: int) -> dict[str, Any] | None:
    """Remove the first complete message from `buffer` and return it; None if there is none yet.

    Raises `ValueError` for a message that is not a JSON object, or is longer than `most_bytes`.
    """
    end = _PREFIX + int.from_bytes(buffer[:_PREFIX])
    if len(buffer) >= _PREFIX and end > most_bytes:
        raise ValueError(f"a message of {end} bytes")
    if len(buffer) < _PREFIX or len(buffer) < end:
        return None
    message = _load(bytes(buffer[_PREFIX:end]))
    del buffer[:end]
    return message


def _load(payload: bytes) -> dict[str, Any]:
    message = orjson.loads(payload)
    if not isinstance(message, dict):
        raise ValueError("a message that is no object")
    return message
