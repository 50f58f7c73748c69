"""How a pool and its workers talk: JSON objects, each after its length in 8 bytes, big end first."""

from __future__ import annotations

from typing import Any, BinaryIO

import orjson

_PREFIX = 8


def pack(message: dict[str, Any]) -> bytes:
    """One frame; raises `TypeError` (orjson's) for what JSON cannot hold."""
    payload = orjson.dumps(message)
    return len(payload).to_bytes(_PREFIX) + payload


def read(file: BinaryIO) -> dict[str, Any] | None:
    """The next message of a blocking file, or None at its end."""
    prefix = file.read(_PREFIX)
    if len(prefix) < _PREFIX:
        return None
    length = int.from_bytes(prefix)
    payload = file.read(length)
    return _load(payload) if len(payload) == length else None


def take(buffer: bytearray, most_bytes: int) -> dict[str, Any] | None:
    """Removes the first whole message from `buffer`; None where there is none yet.

    Raises `ValueError` for one that is no object of JSON, or would be longer than `most_bytes`.
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
