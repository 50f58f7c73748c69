"""Values as JSON, with the types that literals have."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

_SMALL = 1 << 60
_SEQUENCES: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_OTHERS: dict[str, Callable[[Any], Any]] = {
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "int": lambda text: int(text, 16),
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(*parts),
}
_NUMBERS = {("decimal", "Decimal"), ("fractions", "Fraction")}
"""Modules that are imported where their values come up: every judge would wait for them."""


def encode(value: Any, hold: Callable[[Any], Any]) -> Any:
    """The value as JSON; `hold` gives what stands for an object that no literal has, or raises."""
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < _SMALL else {"int": hex(value)}
    if isinstance(value, list):
        return [encode(each, hold) for each in value]
    for name, sequence in _SEQUENCES.items():
        if isinstance(value, sequence):
            return {name: [encode(each, hold) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, hold), encode(each, hold)] for key, each in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes" if isinstance(value, bytes) else "bytearray": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    kind = (type(value).__module__, type(value).__name__)
    return {"number": [*kind, str(value)]} if kind in _NUMBERS else {"held": hold(value)}


def decode(value: Any, held: Callable[[Any], Any]) -> Any:
    """The value that `encode` made; `held` gives what a handle stands for. Raises any `Exception` for what is none."""
    if isinstance(value, list):
        return [decode(each, held) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "held":
        return held(content)
    if kind == "dict":
        return {decode(key, held): decode(each, held) for key, each in content}
    if kind == "number":
        return _number(*content)
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](decode(each, held) for each in content)
    return _OTHERS[kind](content)


def _number(module: str, name: str, text: str) -> Any:
    if (module, name) not in _NUMBERS:
        raise ValueError(f"no number is a {module}.{name}")
    return getattr(importlib.import_module(module), name)(text)
