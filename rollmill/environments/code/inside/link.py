"""Remote objects over pipes: two processes use each other's objects through proxies."""

from __future__ import annotations

import builtins
import copy
import types
from collections.abc import Callable
from typing import Any

from rollmill.environments.code.inside.mirror import (
    CHANGING,
    INTERNAL,
    SPECIALS,
    VALUES,
    ProgramEnded,
    RaisedError,
    Remote,
    RemoteClass,
    is_remote,
    require_object,
    special_methods,
    value_type,
)
from rollmill.environments.code.inside.process import Pipe, describe, truncated
from rollmill.environments.code.inside.values import decode, encode, import_standard, standard_path

LONGEST_TEXT = 1 << 16


class Link:
    """One end of the pipes between two processes, with tables of the objects of both."""

    guarded = False
    """True if the other process is not trusted."""

    def __init__(self, pipe: Pipe, operations: dict[str, Callable[..., Any]]) -> None:
        self._pipe = pipe
        self._operations = operations
        # Objects of this process that the other one has handles of, and the index of each by its id.
        self._objects: list[Any] = []
        self._indices: dict[int, int] = {}
        self._described: set[int] = set()
        self._new_classes: list[dict[str, Any]] = []
        # Encoded content of mutable objects as the other process knows it, by index.
        self._sent: dict[int, Any] = {}
        self._classes: dict[int, Any] = {}
        self._proxies: dict[int, Any] = {}
        self.shared_classes: dict[str, type] = {}
        """Classes that both processes define, by name; their instances are sent by value."""
        self.calls = 0
        self.ended = False
        self.equal: list[tuple[Any, Any]] = []
        """Pairs of the other process's objects that it reported as equal."""
        self.constructed: dict[int, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}
        """Class and arguments of the other process's objects that this one constructed, by index."""

    # Hooks of subclasses.

    def check_sendable(self, value: Any) -> None:
        """Raise `TypeError` for an object of this process that must not be sent to the other one."""

    def check_allowed(self, operation: str, target: Any, args: list[Any]) -> None:
        """Raise `TypeError` for an operation that the other process must not request."""

    def printed(self) -> list[str]:
        """Return output and error output of this process since the last call, for the other process to print."""
        return []

    def write_output(self, text: str, errors: str) -> None:
        """Print output and error output of the other process."""

    def changed_names(self) -> dict[str, Any]:
        """Return the new values of this process's global names that the other one knows, since the last call."""
        return {}

    def update_names(self, values: dict[str, Any]) -> None:
        """Store the new values of the other process's global names."""

    # Requests to the other process.

    def request(self, operation: str, of: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Let the other process apply an operation to its object, and return the result.

        Raises the exception of the operation, `TypeError` for values that cannot be sent, and `ProgramEnded`.

        Args:
            operation: Name of the operation, such as `call`.
            of: Proxy of the object; None for the process itself.
            args: Positional arguments.
            kwargs: Keyword arguments.
        """
        if self.ended:
            raise ProgramEnded
        request: dict[str, Any] = {"do": operation, "of": None if of is None else self._index(of)}
        request["args"] = [self.encode(each) for each in args]
        request["kwargs"] = {name: self.encode(each) for name, each in kwargs.items()}
        value, error = self._exchange(request, args)
        if error:
            raise error
        if self.guarded and of is not None:
            value = self._check_result(operation, of, value)
            if operation == "call" and isinstance(of, type) and is_remote(value):
                self.constructed[self._index(value)] = (of, args, kwargs)
        return value

    def special(self, name: str, of: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Let the other process call a special method of its object.

        Args:
            name: Name of the method, such as `__add__`.
            of: Proxy of the object.
            args: Positional arguments.
            kwargs: Keyword arguments.
        """
        operation = "call" if name == "__call__" else "special"
        return self.request(operation, of, args if operation == "call" else (name, *args), kwargs)

    def _check_result(self, operation: str, of: Any, value: Any) -> Any:
        """Check a result of an untrusted process, and return it.

        Results of a tainted object are tainted as well, and only its attributes and texts may be values.
        """
        if isinstance(of, type) or not of._rollmill_tainted or operation in {"repr", "str", "hash", "setattr", "equal"}:
            return value
        if is_remote(value) and not isinstance(value, type):
            object.__setattr__(value, "_rollmill_tainted", True)
        if operation != "getattr" and value is not NotImplemented:
            require_object(value, operation)
        return value

    def _exchange(self, request: dict[str, Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
        try:
            self._send(request)
            # Before it answers, the other process may itself request operations on its arguments.
            while "do" in (answer := self._receive()):
                self._send(self._answer(answer))
            self.calls += 1
            if "raised" in answer:
                return None, self._error(answer)
            value = args[answer["same"]] if "same" in answer else self.decode(answer["value"])
            for index, each in answer["changed"]:
                _change(args[index], self.decode(each))
        except Exception:
            self.ended = True
            raise ProgramEnded from None
        return value, None

    def _send(self, message: dict[str, Any]) -> None:
        """Send a message, together with all changes that the other process does not know of."""
        names = self.changed_names()
        contents = []
        for index, before in list(self._sent.items()):
            now = self._content(self._objects[index])
            if now != before:
                self._sent[index] = now
                contents.append([index, now])
        news, self._new_classes = self._new_classes, []
        updates = {"contents": contents, "classes": news, "printed": self.printed()}
        self._pipe.send({**message, **updates, **({"names": names} if names else {})})

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = self._pipe.receive()
        for described in message.get("classes", ()):
            self._add_class(described)
        for index, content in message.get("contents", ()):
            _change_value(self._proxies[index], self.decode(content))
        if message.get("printed"):
            self.write_output(*map(str, message["printed"]))
        if message.get("names"):
            self.update_names({str(name): self.decode(each) for name, each in message["names"].items()})
        return message

    # Requests of the other process.

    def serve(self) -> None:
        """Answer requests until the pipe is closed."""
        while True:
            self._send(self._answer(self._receive()))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            target = self if request["of"] is None else self._objects[request["of"]]
            args = [self.decode(each) for each in request["args"]]
            kwargs = {name: self.decode(each) for name, each in request["kwargs"].items()}
            self.check_allowed(request["do"], target, args)
            # Arguments that are sent by value may be changed by the call: the caller applies the changes to its own.
            before = [self.encode(each) for each in args]
            value = self._operations[request["do"]](target, *args, **kwargs)
            after = [self.encode(each) for each in args]
            answer: dict[str, Any] = {
                "changed": [[index, each] for index, each in enumerate(after) if each != before[index]]
            }
            # A function that returns its argument must return the caller's own object.
            same = [index for index, each in enumerate(args) if each is value]
            return answer | ({"same": same[0]} if same else {"value": self.encode(value)})
        except ProgramEnded:
            raise
        except BaseException as error:
            return self._raised(error)

    def _raised(self, error: BaseException) -> dict[str, Any]:
        kinds = [kind.__name__ for kind in type.mro(type(error))]
        answer = {"raised": kinds, "words": describe(error), "text": _safe_text(error)}
        try:
            if isinstance(error, Exception):
                answer["error"] = self.encode(error)
            if isinstance(error.__cause__, Exception):
                answer["cause"] = self.encode(error.__cause__)
        except BaseException:
            return answer
        return answer

    def _error(self, answer: dict[str, Any]) -> BaseException:
        """Return the exception that the other process raised, with its own type if this process has it."""
        error = self.decode(answer.get("error"))
        if isinstance(error, Exception):
            cause = self.decode(answer.get("cause"))
            error.__cause__ = cause if isinstance(cause, Exception) else None  # untrusted: it may be any value
            return error
        for name in answer["raised"]:
            kind = getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
                try:
                    return kind(str(answer["text"]))
                except TypeError:
                    continue
        return RaisedError(str(answer["words"]))

    # Values and handles.

    def encode(self, value: Any) -> Any:
        """Encode a value, or a handle of an object. Raises `TypeError` for an object that must not be sent."""
        return encode(value, self._make_handle)

    def decode(self, value: Any) -> Any:
        """Decode a value of the other process. Raises any `Exception` for malformed input."""
        return decode(value, self._resolve)

    def _index(self, of: Any) -> int:
        index: int = type.__getattribute__(of, "_rollmill_of") if isinstance(of, type) else of._rollmill_of
        return index

    def _make_handle(self, value: Any) -> Any:
        """Return the JSON that represents an object which is no literal."""
        if is_remote(value):
            return {"yours": self._index(value)}
        kind = type(value)
        if self.shared_classes.get(kind.__name__) and kind.__module__ == self.shared_classes[kind.__name__].__module__:
            return {"given": [kind.__name__, self.encode(dict(vars(value)))]}
        if isinstance(value, types.TracebackType):
            return None  # frames would give access to all variables
        if isinstance(value, Exception) and standard_path(kind):
            return {"error": [self.encode(kind), self.encode(list(value.args))]}
        self.check_sendable(value)
        if isinstance(value, type):
            self._describe(value)
            return {"class": self._object_index(value)}
        self._describe(kind)
        index = self._object_index(value)
        handle: list[Any] = [index, self._object_index(kind), truncated(str(getattr(value, "__name__", kind.__name__)))]
        if value_type(kind):
            content = self._content(value)
            if issubclass(kind, CHANGING):
                self._sent.setdefault(index, content)  # later changes are sent as `contents`
            handle.append(content)
        return {"held": handle}

    def _content(self, value: Any) -> Any:
        base = value_type(type(value))
        return self.encode(VALUES[base](value)) if base else None

    def _object_index(self, value: Any) -> int:
        if id(value) not in self._indices:  # the list keeps objects alive, so that ids are not reused
            self._indices[id(value)] = len(self._objects)
            self._objects.append(value)
        return self._indices[id(value)]

    def _describe(self, kind: type) -> None:
        """Queue the description of a class and its bases, from which the other process makes a mirrored class."""
        index = self._object_index(kind)
        if index in self._described:
            return
        self._described.add(index)
        standard = standard_path(kind) or (["types", kind.__name__] if INTERNAL.get(kind.__name__) is kind else None)
        bases: list[Any] = []
        for base in () if standard else kind.__bases__:
            root = _shared_base(base)
            if root is base or standard_path(base):
                bases += [root.__name__] if root and root.__name__ not in bases else []
            else:
                self._describe(base)
                bases.append(self._object_index(base))
        above = value_type(kind) or object
        fields = kind.__dict__.get("__dataclass_fields__")
        doc = kind.__dict__.get("__doc__")
        self._new_classes.append(
            {
                "index": index,
                "name": kind.__name__,
                "module": str(kind.__module__),
                "doc": doc[:LONGEST_TEXT] if isinstance(doc, str) else None,
                "bases": bases,
                "standard": standard,
                "fields": list(fields) if isinstance(fields, dict) else None,
                "match": [each for each in getattr(kind, "__match_args__", ()) if isinstance(each, str)],
                "specials": [
                    name
                    for name in sorted(SPECIALS)
                    if getattr(kind, name, None) is not None and getattr(kind, name) != getattr(above, name, None)
                ],
            }
        )

    def _resolve(self, kind: str, content: Any) -> Any:
        if kind == "yours":
            return self._objects[content]
        if kind == "class":
            return self._classes[content]
        if kind == "given":
            name, state = content
            instance: Any = object.__new__(self.shared_classes[name])
            instance.__dict__.update(self.decode(state))
            return instance
        if kind == "error":
            return _make_error(self.decode(content[0]), self.decode(content[1]))
        if kind != "held":
            raise ValueError(kind)
        index, of, name, *value = content
        if index not in self._proxies:
            self._proxies[index] = self._make_proxy(int(index), self._classes[of], truncated(str(name)), value)
        return self._proxies[index]

    def _make_proxy(self, index: int, kind: Any, name: str, value: list[Any]) -> Any:
        """Return a proxy of an object of the other process.

        Args:
            index: Index of the object there.
            kind: Mirrored class.
            name: Name of a function or class; else that of its class.
            value: Empty, or the encoded content of an object that is also a list, number or similar.
        """
        base = value_type(kind)
        proxy: Any
        if base:
            content = self.decode(value[0])
            if type(content) is not base:
                raise ValueError("no value of that type")
            proxy = base.__new__(kind) if issubclass(base, CHANGING) else base.__new__(kind, content)
            _change_value(proxy, content)
        else:
            # `object.__new__` refuses subclasses of built-in types such as exceptions.
            above: Any = next((each for each in type.mro(kind) if each.__module__ == "builtins"), object)
            proxy = above.__new__(kind)
        object.__setattr__(proxy, "_rollmill_link", self)
        object.__setattr__(proxy, "_rollmill_of", index)
        object.__setattr__(proxy, "_rollmill_name", name)
        return proxy

    def _add_class(self, described: dict[str, Any]) -> None:
        """Make the mirrored class of a description; see `_describe`."""
        name = truncated(str(described["name"]))
        bases = [self._classes[each] for each in described["bases"] if isinstance(each, int)] or [Remote]
        natives = [native for each in described["bases"] if isinstance(each, str) and (native := _native(each))]
        space: dict[str, Any] = {"__module__": str(described["module"]), "__qualname__": name}
        space |= {"__doc__": described["doc"]}
        space["__match_args__"] = tuple(str(each) for each in described["match"])
        if described["fields"] is not None:
            import dataclasses

            fields = [str(each) for each in described["fields"]]
            space["__dataclass_fields__"] = vars(dataclasses.make_dataclass("_", fields))["__dataclass_fields__"]
        if described["standard"]:
            standard = _standard_class(*described["standard"])
            space["__class__"] = property(lambda _: standard)
        value = next((base for base in (*map(value_type, bases), *natives) if base in VALUES), None)
        space |= special_methods(value, set(described["specials"]))
        space |= {"_rollmill_link": self, "_rollmill_of": int(described["index"])}
        try:
            kind = RemoteClass(name, (*bases, *natives), space)
        except TypeError:  # the bases' layouts conflict
            kind = RemoteClass(name, (Remote,), space)
        self._classes[int(described["index"])] = kind


def _shared_base(kind: type) -> type | None:
    """Return the first built-in class of values or exceptions that a class derives from; None without one."""
    return next((each for each in type.mro(kind) if _native(each.__name__) is each), None)


def _native(name: str) -> type | None:
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type):
        return None
    return kind if kind in VALUES or (issubclass(kind, Exception)) else None


def _standard_class(module: str, name: str) -> Any:
    return INTERNAL[name] if module == "types" else import_standard(module, name)


def _make_error(kind: Any, args: list[Any]) -> Exception:
    if not issubclass(kind, Exception):
        raise TypeError(f"{kind.__name__} is no exception")
    try:
        error: Exception = kind(*args)
    except TypeError:
        error = kind.__new__(kind, *args)
    return error


def _safe_text(error: BaseException) -> str:
    try:
        return truncated(str(error))
    except BaseException:
        return ""


def _change(original: Any, now: Any) -> None:
    """Apply the changes that the other process made to an argument."""
    if is_remote(original) or type(original) is not type(now):
        return
    if isinstance(original, CHANGING) or hasattr(original, "maxlen"):
        _change_value(original, now)
    elif isinstance(getattr(original, "__dict__", None), dict):
        original.__dict__.clear()
        original.__dict__.update(vars(now))


def _change_value(original: Any, now: Any) -> None:
    if isinstance(original, list):
        list.__setitem__(original, slice(None), now)
    elif isinstance(original, bytearray):
        bytearray.__setitem__(original, slice(None), now)
    elif isinstance(original, dict):
        dict.clear(original)
        dict.update(original, now)
    elif isinstance(original, set):
        set.clear(original)
        set.update(original, now)
    elif hasattr(original, "maxlen"):
        original.clear()
        original.extend(now)


def is_equal(of: Any, other: Any) -> bool:
    """Return whether two objects are equal; False if the first one claims to equal any object."""
    if not of == other:  # noqa: SIM201 - `!=` would call its own `__ne__`
        return False
    try:
        return not bool(of == object())
    except Exception:
        return True


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda of, *args, **kwargs: of(*args, **kwargs),
    "contains": lambda of, item: item in of,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "delattr": delattr,
    "equal": is_equal,
    "getattr": getattr,
    "getitem": lambda of, key: of[key],
    "hash": hash,
    "iter": iter,
    "len": len,
    "repr": repr,
    "setattr": setattr,
    "special": lambda of, name, *args: getattr(type(of), name)(of, *args),
    "str": str,
}
