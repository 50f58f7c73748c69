"""Encode values as JSON: literals, values of the standard library, and handles of all other objects."""

from __future__ import annotations

import importlib
import sys
import types
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
_CONSTANTS: dict[str, Any] = {"NotImplemented": NotImplemented, "Ellipsis": Ellipsis}


def _attributes(*names: str) -> Callable[[Any], list[Any]]:
    return lambda value: [getattr(value, name) for name in names]


_DAY = ("year", "month", "day")
_CLOCK = ("hour", "minute", "second", "microsecond", "tzinfo", "fold")
_STANDARD: dict[tuple[str, str], Callable[[Any], list[Any]]] = {
    ("array", "array"): lambda value: [value.typecode, list(value)],
    ("builtins", "slice"): _attributes("start", "stop", "step"),
    ("collections", "Counter"): lambda value: [dict(value)],
    ("collections", "OrderedDict"): lambda value: [list(value.items())],
    ("collections", "defaultdict"): lambda value: [value.default_factory, dict(value)],
    ("collections", "deque"): lambda value: [list(value), value.maxlen],
    ("datetime", "date"): _attributes(*_DAY),
    ("datetime", "datetime"): _attributes(*_DAY, *_CLOCK),
    ("datetime", "time"): _attributes(*_CLOCK),
    ("datetime", "timedelta"): _attributes("days", "seconds", "microseconds"),
    ("datetime", "timezone"): lambda value: [value.utcoffset(None), value.tzname(None)],
    ("decimal", "Decimal"): lambda value: [str(value)],
    ("fractions", "Fraction"): lambda value: [str(value)],
    ("pathlib", "PosixPath"): lambda value: [str(value)],
    ("pathlib", "PurePosixPath"): lambda value: [str(value)],
    ("types", "SimpleNamespace"): lambda value: [dict(vars(value))],
    ("uuid", "UUID"): lambda value: [str(value)],
}
"""Constructor arguments of a value, by its class. Modules are imported only when a value of theirs arrives, since
importing all of them would slow down every judge."""
_WITH_FOLD = {("datetime", "datetime"), ("datetime", "time")}
_IMPORTED = frozenset(
    [
        "abc",
        "array",
        "bisect",
        "builtins",
        "cmath",
        "collections",
        "collections.abc",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "io",
        "itertools",
        "json",
        "json.decoder",
        "math",
        "numbers",
        "operator",
        "pathlib",
        "queue",
        "random",
        "re",
        "statistics",
        "string",
        "time",
        "types",
        "typing",
        "uuid",
    ]
)
"""Modules whose functions and classes are identical in both processes, and are sent by name."""


def encode(value: Any, make_handle: Callable[[Any], Any]) -> Any:
    """Encode a value as JSON; `make_handle` returns the JSON of an object that is no literal, or raises.

    Only instances of exactly these types are encoded by value, since a subclass may behave differently.
    """
    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is int:
        return value if abs(value) < _SMALL else {"int": hex(value)}
    if kind is list:
        return [encode(each, make_handle) for each in value]
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [encode(each, make_handle) for each in value]}
    if kind is dict:
        return {"dict": [[encode(key, make_handle), encode(each, make_handle)] for key, each in value.items()]}
    if kind in (bytes, bytearray):
        return {kind.__name__: value.hex()}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if kind is range:
        return {"range": [value.start, value.stop, value.step]}
    for name, constant in _CONSTANTS.items():
        if value is constant:
            return {"constant": name}
    arguments = _STANDARD.get((kind.__module__, kind.__qualname__))
    if arguments:
        parts = [encode(each, make_handle) for each in arguments(value)]
        return {"standard": [kind.__module__, kind.__qualname__, parts]}
    path = standard_path(value)
    return {"import": path} if path else make_handle(value)


def decode(value: Any, resolve: Callable[[str, Any], Any]) -> Any:
    """Decode the result of `encode`; `resolve` returns the object of a handle.

    Raises any `Exception` for malformed input.
    """
    if isinstance(value, list):
        return [decode(each, resolve) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {decode(key, resolve): decode(each, resolve) for key, each in content}
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](decode(each, resolve) for each in content)
    if kind in _OTHERS:
        return _OTHERS[kind](content)
    if kind == "constant":
        return _CONSTANTS[content]
    if kind == "standard":
        module, name, parts = content
        return _make_standard(module, name, parts, resolve)
    return import_standard(*content) if kind == "import" else resolve(kind, content)


def standard_path(value: Any) -> list[str] | None:
    """Return module and name of a function or class of the standard library; None for other objects."""
    if not _is_importable(value):
        return None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module not in _IMPORTED or module not in sys.modules or not isinstance(name, str):
        return None
    attribute = sys.modules[module]
    for part in name.split("."):
        attribute = getattr(attribute, part, None)  # type: ignore[assignment]
    return [module, name] if attribute is value else None


def import_standard(module: str, name: str) -> Any:
    """Import a function or class of the standard library by name. Raises `ValueError` for other names."""
    if module not in _IMPORTED:
        raise ValueError(f"{module} is not shared")
    attribute = importlib.import_module(module)
    for part in name.split("."):
        attribute = getattr(attribute, part)
    if not _is_importable(attribute):
        raise ValueError(f"{module}.{name} is no function and no class")
    return attribute


def import_module(name: str) -> Any:
    """Import a module of `_IMPORTED`. Raises `ValueError` for another one."""
    if name not in _IMPORTED:
        raise ValueError(f"{name} is not shared")
    return importlib.import_module(name)


def _is_importable(value: Any) -> bool:
    kind = type(value)  # not `__class__`, which a proxy forges
    if kind is types.BuiltinFunctionType:
        return value.__self__ is None or isinstance(value.__self__, types.ModuleType)
    return issubclass(kind, type) or kind in (types.FunctionType, types.MethodDescriptorType)


def _make_standard(module: str, name: str, parts: list[Any], resolve: Callable[[str, Any], Any]) -> Any:
    """Construct a value of the standard library.

    Args:
        module: Module of its class.
        name: Name of its class.
        parts: Encoded arguments, as in `_STANDARD`.
        resolve: Returns the object of a handle.
    """
    if (module, name) not in _STANDARD:
        raise ValueError(f"no value is a {module}.{name}")
    kind = getattr(importlib.import_module(module), name)
    arguments = [decode(each, resolve) for each in parts]
    if (module, name) == ("types", "SimpleNamespace"):
        return kind(**arguments[0])
    if (module, name) in _WITH_FOLD:
        return kind(*arguments[:-1], fold=arguments[-1])
    return kind(*arguments)


def shared_classes(prelude: str, names: list[str], namespace: dict[str, Any]) -> dict[str, type]:
    """Return the classes of a problem's prelude whose instances can be sent as their attributes.

    Code and tests both run the prelude. Classes that the code is to write (`names`) are excluded.
    """
    import ast

    defined = [node.name for node in ast.parse(prelude).body if isinstance(node, ast.ClassDef)]
    classes = {name: namespace.get(name) for name in defined if name not in names}
    return {name: kind for name, kind in classes.items() if type(kind) is type and _is_open(kind)}


def _is_open(kind: type) -> bool:
    natives = [each for each in type.mro(kind) if each.__module__ == "builtins"]
    return natives == [object] and kind.__dictoffset__ != 0
