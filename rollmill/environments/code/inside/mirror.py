"""Objects of one process as proxies in another.

Values cross as what they are (`values`); all other objects stay where they are, and the other process has a proxy of a
class that mirrors theirs: its name, its bases, the special methods that it has. What a proxy is asked, is asked there.

Code under test is not trusted. Where its objects meet the tests' own values, the values decide: an object of the code
equals another one of the code at most, and what it computes from a value of the tests is an object again. One
computed so (`tainted`) gives no number, truth or length of which a test could be made: `abs(f(x) - 2.0) < 1e-6`.
"""

from __future__ import annotations

import secrets
import types
from collections.abc import Callable
from typing import Any

_PRIVATE = "_rollmill_"
_ASKED = {
    "__annotations__", "__dataclass_params__", "__defaults__", "__dict__", "__doc__", "__func__", "__kwdefaults__",
    "__members__", "__name__", "__qualname__", "__self__", "__slots__", "__wrapped__",
}  # fmt: skip
"""Special attributes that are asked for, like all that are not special."""
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
"""Types whose subclasses' objects have a value: the type's own methods read it."""
CHANGING = (list, dict, set, bytearray)
INTERNAL = {kind.__name__: kind for kind in vars(types).values() if isinstance(kind, type)}
"""Types without a name in `builtins`: functions, methods, generators."""

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
    """The code's process ended, or sent a malformed answer; not caught by `except Exception` in tests."""


class RaisedError(Exception):
    """An exception that the code raised and no test can expect, such as `SystemExit`."""


def _ask(target: Any, operation: str, *args: Any, **kwargs: Any) -> Any:
    link: Any = type.__getattribute__(target, "_rollmill_link") if isinstance(target, type) else target._rollmill_link
    return link.ask(operation, target, args, kwargs)


class RemoteClass(type):
    """A class of the other process."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an object of the class, there."""
        return _ask(cls, "call", *args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith(_PRIVATE) or (name.startswith("__") and name not in _ASKED):
            raise AttributeError(name)
        return _ask(cls, "getattr", name)

    def __setattr__(cls, name: str, value: Any) -> None:
        if name.startswith("__"):
            type.__setattr__(cls, name, value)
        else:
            _ask(cls, "setattr", name, value)

    def __iter__(cls) -> Any:
        return _ask(cls, "iter")

    def __len__(cls) -> int:
        return int(_ask(cls, "len"))

    def __getitem__(cls, key: Any) -> Any:
        return _ask(cls, "getitem", key)

    def __contains__(cls, item: Any) -> bool:
        return is_remote(item) and bool(_ask(cls, "contains", item))

    def __bool__(cls) -> bool:
        return True

    def __repr__(cls) -> str:
        return _text(cls, "repr")

    @property
    def __mro__(cls) -> tuple[type, ...]:
        return tuple(kind for kind in type.mro(cls) if kind is not Remote)


class Remote(metaclass=RemoteClass):
    """An object of the other process."""

    _rollmill_tainted = False

    def __getattribute__(self, name: str) -> Any:
        special = name.startswith("__") and name.endswith("__") and name not in _ASKED
        if special or name.startswith(_PRIVATE) or (name in _OF_ERRORS and isinstance(self, BaseException)):
            return object.__getattribute__(self, name)
        return _ask(self, "getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith((_PRIVATE, "__")):
            object.__setattr__(self, name, value)
        else:
            _ask(self, "setattr", name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, "delattr", name)

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        return _is_equal(self, other) if is_remote(other) else NotImplemented

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        return hash(int(_ask(self, "hash")))

    def __repr__(self) -> str:
        return _text(self, "repr")

    def __str__(self) -> str:
        return _text(self, "str")

    def __copy__(self) -> Any:
        return _ask(self, "copy")

    def __deepcopy__(self, memo: Any) -> Any:
        return _ask(self, "deepcopy")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"tests cannot pickle a {type(self).__name__}")


def is_remote(value: Any) -> bool:
    """Tell whether a value is a proxy."""
    return type(type(value)) is RemoteClass or type(value) is RemoteClass


def _has_value(value: Any) -> bool:
    return not is_remote(value) or isinstance(value, tuple(VALUES))


def _is_equal(one: Any, other: Any) -> bool:
    link: Any = one._rollmill_link
    equal = link.ask("equal", one, (other,), {}) is True
    if equal:
        link.equal.append((one, other))
    return equal


def _text(value: Any, operation: str) -> str:
    text = _ask(value, operation)
    if type(text) is not str:
        raise TypeError(f"{operation} returned no text")
    return text


def _make_special(name: str) -> Callable[..., Any]:
    def ask(self: Any, *args: Any, **kwargs: Any) -> Any:
        link: Any = self._rollmill_link
        if not link.guarded:
            return link.special(name, self, args, kwargs)
        plain = [each for each in args if _has_value(each)]
        if name in _ORDER and plain:
            return NotImplemented
        result = link.special(name, self, args, kwargs)
        if name == "__contains__":
            return bool(result) and not (plain and link.special(name, self, (_other_than(args[0]),), {}))
        if name in _ARITHMETIC and plain and result is not NotImplemented:
            require_object(result, name)
            object.__setattr__(result, "_rollmill_tainted", True)
        return result

    ask.__name__ = ask.__qualname__ = name
    return ask


def _other_than(item: Any) -> Any:
    """Return a value of the same kind that nothing holds but what claims to hold everything."""
    if type(item) in (int, float):
        return type(item)(secrets.randbits(50) + (1 << 51))
    return secrets.token_hex(8)


def require_object(value: Any, name: str) -> None:
    """Raise `TypeError` for a result that is a value where only an object of the code may be."""
    if _has_value(value) or isinstance(value, type):
        raise TypeError(f"{name} of the code's object and a value of the tests returns no object of the code")


_SPECIAL_METHODS = {name: _make_special(name) for name in SPECIALS}


def special_methods(value: type | None, names: set[str]) -> dict[str, Any]:
    """Return a mirrored class's methods; where its objects have a value, the value's type compares and computes."""
    asked = names & SPECIALS
    if value is None:
        return {name: _SPECIAL_METHODS[name] for name in asked}
    asked -= _ARITHMETIC | _ORDER | {"__abs__", "__bool__", "__float__", "__index__", "__int__", "__neg__", "__round__"}
    if issubclass(value, CHANGING):
        asked |= {name for name in _CHANGES if hasattr(value, name)}
    own = {name: getattr(value, name) for name in ("__eq__", "__ne__")}
    own["__hash__"] = value.__hash__
    return own | {name: _SPECIAL_METHODS[name] for name in asked}


def value_type(kind: type) -> Any:
    """Return the type of `VALUES` that a class derives from; None without one."""
    return next((base for base in type.mro(kind) if base in VALUES), None)
