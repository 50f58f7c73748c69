"""Tool calls of training rows: any producer's form -> OpenAI's, with arguments as an object."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

_LARGEST_EXACT = 2.0**63
_DEEPEST = 100
"""Levels of a call's arguments: orjson reads a thousand, at which recursive functions would overflow the stack."""
_ARGUMENT_NAMES = ("arguments", "args", "input", "parameters")


class UnusableRowError(Exception):
    """A row that cannot be trained on: the field at fault, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


class CallArguments(dict[str, Any]):
    """The arguments of a tool call as an object. `text`: as the row has them, for templates that write text."""

    text: str = ""


def read_call(call: Any) -> Any:
    """Return a tool call with its arguments as an object, which is how servers hand them to templates."""
    if isinstance(call, dict) and call.get("function") is None and isinstance(call.get("name"), str):
        call = _nest(call)
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    function = {key: value for key, value in function.items() if value is not None}
    function["arguments"] = read_arguments(function.get("arguments"))
    return {**{key: value for key, value in call.items() if value is not None}, "function": function}


def read_arguments(arguments: Any) -> Any:
    """Return the arguments of a call as an object; text that is no JSON object stays as the model wrote it.

    Raises `UnusableRowError` for arguments that are nested too deep, or have a number that is not exact.
    """
    text = arguments if isinstance(arguments, str) else None
    if text is not None:
        with suppress(ValueError, RecursionError):
            # Python's reader, not orjson: it keeps integers of any length, which a template writes as the model did.
            arguments = json.loads(text, parse_constant=_refuse_constant) if text.strip() else {}
    if arguments is None:
        arguments = {}
    if _is_deeper(arguments, _DEEPEST):
        raise UnusableRowError("messages", f"arguments of a call that are nested more than {_DEEPEST} levels deep")
    if not isinstance(arguments, dict):
        return arguments if text is None else text
    if _has_inexact_number(arguments):
        raise UnusableRowError("messages", "arguments of a call with a number that is not read exactly")
    loaded = CallArguments(arguments)
    loaded.text = text.strip() if text and text.strip() else json.dumps(arguments, ensure_ascii=False)
    return loaded


def _nest(call: dict[str, Any]) -> dict[str, Any]:
    """Return a flat call, with name and arguments beside each other as people write it by hand, in OpenAI's form."""
    arguments = next((call[name] for name in _ARGUMENT_NAMES if call.get(name) is not None), None)
    identity = {"id": call["id"]} if call.get("id") is not None else {}
    return {**identity, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _has_inexact_number(value: Any) -> bool:
    """Return whether a number is infinite, or so large that the row's reader may have rounded an integer."""
    if isinstance(value, dict | list):
        return any(map(_has_inexact_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not -_LARGEST_EXACT < value < _LARGEST_EXACT


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether lists and objects are nested more than `levels` deep. Without recursion, level by level."""
    inner = [value]
    for _ in range(levels + 1):
        inner = [
            item
            for outer in inner
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not inner:
            return False
    return True
