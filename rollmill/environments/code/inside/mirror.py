"""Proxies that represent objects of one process in another.

Values are sent as they are (`values`). All other objects stay in their process, and the other process has a proxy,
whose class mirrors theirs: name, bases and special methods. Operations on a proxy are forwarded to the object.

Code under test is not trusted, so its objects must not decide comparisons with the tests' own values. An object of the
code can equal only another object of the code, and the result of arithmetic with a value of the tests must be an object
again. Such a result is `tainted`: it yields no number, truth value or length, so that `abs(f(x) - 2.0) < 1e-6` cannot
be forged.
"""

from __future__ import annotations

import secrets
import types
from collections.abc import Callable
from typing import Any

_PRIVATE = "_rollmill_"
_FORWARDED = {
    "__annotations__", "__dataclass_params__", "__defaults__", "__dict__", "__doc__", "__func__", "__kwdefaults__",
    "__members__", "__name__", "__qualname__", "__self__", "__slots__", "__wrapped__",
}  # fmt: skip
"""Special attributes that are forwarded, as all other attributes without leading underscores are."""
_OF_ERRORS = {"add_note", "with_traceback"}
VALUES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__pos__,
    complex: complex.__pos__,
    str: lambda value: str.__getitem__(value, slice(None)),
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    list: list.copy,
    dict: dict.copy,
    set: lambda value: {*set.__iter__(value)},
    bytearray: lambda value: bytearray.__getitem__(value, slice(None)),
}
"""Types whose subclasses' instances have a value, with the type's own method that reads it."""
CHANGING = (list, dict, set, bytearray)
INTERNAL = {kind.__name__: kind for kind in vars(types).values() if isinstance(kind, type)}
"""Types that have no name in `builtins`: functions, methods, generators."""

_OPERATORS = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and",
              "xor", "or")  # fmt: skip
_ARITHMETIC = {f"__{side}{name}__" for name in _OPERATORS for side in ("", "r", "i")}
_ORDER = {"__lt__", "__le__", "__gt__", "__ge__"}
_PLAIN = {
    "__abs__", "__bool__", "__bytes__", "__call__", "__ceil__", "__complex__", "__contains__", "__delitem__",
    "__enter__", "__exit__", "__float__", "__floor__", "__format__", "__getitem__", "__index__", "__int__",
    "__invert__", "__iter__", "__len__", "__missing__", "__neg__", "__next__", "__pos__", "__reversed__", "__round__",
    "__setitem__", "__trunc__",
}  # fmt: skip
SPECIALS = _ARITHMETIC | _ORDER | _PLAIN
_CHANGES = ("__delitem__", "__iadd__", "__iand__", "__imul__", "__ior__", "__isub__", "__ixor__", "__setitem__")


class ProgramEnded(BaseException):
    """Raised if the code's process ended or sent a malformed answer; `except Exception` in tests does not catch it."""


class RaisedError(Exception):
    """Raised for an exception of the code that tests cannot expect, such as `SystemExit`."""


def _request(target: Any, operation: str, *args: Any, **kwargs: Any) -> Any:
    link: Any = type.__getattribute__(target, "_rollmill_link") if isinstance(target, type) else target._rollmill_link
    return link.request(operation, target, args, kwargs)


class RemoteClass(type):
    """Metaclass of proxies; an instance represents a class of the other process."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Construct an instance in the other process."""
        return _request(cls, "call", *args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith(_PRIVATE) or (name.startswith("__") and name not in _FORWARDED):
            raise AttributeError(name)
        return _request(cls, "getattr", name)

    def __setattr__(cls, name: str, value: Any) -> None:
        if name.startswith("__"):
            type.__setattr__(cls, name, value)
        else:
            _request(cls, "setattr", name, value)

    def __iter__(cls) -> Any:
        return _request(cls, "iter")

    def __len__(cls) -> int:
        return int(_request(cls, "len"))

    def __getitem__(cls, key: Any) -> Any:
        return _request(cls, "getitem", key)

    def __contains__(cls, item: Any) -> bool:
        return is_remote(item) and bool(_request(cls, "contains", item))

    def __bool__(cls) -> bool:
        return True  # without this, `__len__` above would be asked

    def __repr__(cls) -> str:
        return _text(cls, "repr")

    @property
    def __mro__(cls) -> tuple[type, ...]:
        return tuple(kind for kind in type.mro(cls) if kind is not Remote)


class Remote(metaclass=RemoteClass):
    """Proxy of an object of the other process."""

    _rollmill_tainted = False

    def __getattribute__(self, name: str) -> Any:
        special = name.startswith("__") and name.endswith("__") and name not in _FORWARDED
        if special or name.startswith(_PRIVATE) or (name in _OF_ERRORS and isinstance(self, BaseException)):
            return object.__getattribute__(self, name)
        return _request(self, "getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith((_PRIVATE, "__")):
            object.__setattr__(self, name, value)
        else:
            _request(self, "setattr", name, value)

    def __delattr__(self, name: str) -> None:
        _request(self, "delattr", name)

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        return _is_equal(self, other) if is_remote(other) else NotImplemented

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        # `int` makes a value of a proxy or subclass.
        return hash(int(_request(self, "hash")))

    def __repr__(self) -> str:
        return _text(self, "repr")

    def __str__(self) -> str:
        return _text(self, "str")

    def __copy__(self) -> Any:
        return _request(self, "copy")

    def __deepcopy__(self, memo: Any) -> Any:
        return _request(self, "deepcopy")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"tests cannot pickle a {type(self).__name__}")


def is_remote(value: Any) -> bool:
    """Return whether a value is a proxy, by its actual type, which a proxy's `__class__` cannot hide."""
    return type(type(value)) is RemoteClass or type(value) is RemoteClass


def _has_value(value: Any) -> bool:
    return not is_remote(value) or isinstance(value, tuple(VALUES))


def _is_equal(left: Any, right: Any) -> bool:
    link: Any = left._rollmill_link
    equal = link.request("equal", left, (right,), {}) is True
    if equal:
        link.equal.append((left, right))
    return equal


def _text(value: Any, operation: str) -> str:
    text = _request(value, operation)
    if type(text) is not str:
        raise TypeError(f"{operation} returned no text")
    return text


def _make_special(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        link: Any = self._rollmill_link
        if not link.guarded:
            return link.special(name, self, args, kwargs)
        # The tests are the guarded side: an object of the code must not decide an order with their values.
        plain = [each for each in args if _has_value(each)]
        if name in _ORDER and plain:
            return NotImplemented
        result = link.special(name, self, args, kwargs)
        # A container that also claims to contain a random value contains everything: its answer does not count.
        if name == "__contains__":
            return bool(result) and not (plain and link.special(name, self, (_random_like(args[0]),), {}))
        if name in _ARITHMETIC and plain and result is not NotImplemented:
            require_object(result, name)
            object.__setattr__(result, "_rollmill_tainted", True)
        return result

    method.__name__ = method.__qualname__ = name
    return method


def _random_like(item: Any) -> Any:
    """Return a random value of the same type, which only a container that claims to contain everything contains."""
    if type(item) in (int, float):
        return type(item)(secrets.randbits(50) + (1 << 51))
    return secrets.token_hex(8)


def require_object(value: Any, name: str) -> None:
    """Raise `TypeError` for a result that is a value where only an object of the code is allowed."""
    if _has_value(value) or isinstance(value, type):
        raise TypeError(f"{name} of the code's object and a value of the tests returns no object of the code")


_SPECIAL_METHODS = {name: _make_special(name) for name in SPECIALS}


def special_methods(value: type | None, names: set[str]) -> dict[str, Any]:
    """Return a mirrored class's special methods; instances with a value are compared and computed by its type."""
    forwarded = names & SPECIALS
    if value is None:
        return {name: _SPECIAL_METHODS[name] for name in forwarded}
    forwarded -= (
        _ARITHMETIC | _ORDER | {"__abs__", "__bool__", "__float__", "__index__", "__int__", "__neg__", "__round__"}
    )
    if issubclass(value, CHANGING):
        forwarded |= {name for name in _CHANGES if hasattr(value, name)}
    methods = {name: getattr(value, name) for name in ("__eq__", "__ne__")}
    methods["__hash__"] = value.__hash__
    return methods | {name: _SPECIAL_METHODS[name] for name in forwarded}


def value_type(kind: type) -> Any:
    """Return the type of `VALUES` that a class derives from; None without one."""
    return next((base for base in type.mro(kind) if base in VALUES), None)
