"""Process of the code under test, which is called through pipes and sees nothing but arguments."""

from __future__ import annotations

import builtins
import io
import linecache
import sys
import types
from typing import Any

from rollmill.environments.code.inside.link import OPERATIONS, Link
from rollmill.environments.code.inside.process import Pipe, describe, set_dumpable
from rollmill.environments.code.inside.values import shared_classes

_NAME, _FILE = "solution", "<code>"
_VALUES = frozenset({bool, int, float, str, list, dict, tuple, set})
"""Types of global variables whose changes are sent to the tests."""
_MOST_PRINTED = 1 << 20
"""Most bytes of output between two messages; more is dropped."""


def run_program(source: Pipe, calls: Pipe) -> None:
    """Load the code that arrives on `source`, and serve `calls` until the pipe is closed."""
    set_dumpable(True)  # it has no secrets, and the sandbox must be able to measure its memory
    _Program(calls, source.receive()).serve()


class _Program(Link):
    def __init__(self, pipe: Pipe, code: dict[str, Any]) -> None:
        super().__init__(pipe, {**OPERATIONS, "load": _Program.load, "names": _Program.find, "source": _source})
        self._code = code
        self._module = types.ModuleType(_NAME)
        self._sent_values: dict[str, Any] = {}
        self._out, self._errors = _Output(), _Output()
        sys.stdout = io.TextIOWrapper(self._out, "utf-8", "surrogatepass", newline="\n", write_through=True)
        sys.stderr = io.TextIOWrapper(self._errors, "utf-8", "surrogatepass", newline="\n", write_through=True)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Stdin(self)), "utf-8", "surrogatepass")
        builtins.input = self._input

    def load(self) -> str | None:
        """Run the code; return why it cannot be used, or None."""
        names = self._module.__dict__
        names["__file__"] = _FILE
        # pickle, dataclasses, enum and typing look up the module that a class names.
        sys.modules[_NAME] = sys.modules["__main__"] = self._module
        linecache.cache[_FILE] = (len(self._code["code"]), None, self._code["code"].splitlines(True), _FILE)
        try:
            # Without `dont_inherit`, the `__future__` imports of this file would apply to the code.
            exec(compile(self._code["prelude"], "<given>", "exec", dont_inherit=True), names)  # noqa: S102
            # Stubs in the prelude must not pass as the code's own functions.
            for name in self._code["names"]:
                names.pop(name, None)
            exec(compile(self._code["code"], _FILE, "exec", dont_inherit=True), names)  # noqa: S102
        except BaseException as error:
            return f"the code does not run: {describe(error)}"
        missing = [name for name in self._code["names"] if name not in names]
        self.shared_classes = shared_classes(self._code["prelude"], self._code["names"], names)
        self.printed()  # output while loading is dropped
        return f"the code defines no {', '.join(missing)}" if missing else None

    def find(self, names: list[str]) -> list[dict[str, Any]]:
        """Return the values of the names that the code defines, and apart from them the names of modules."""
        available = {name: self._module.__dict__[name] for name in names if name in self._module.__dict__}
        modules = {name: each.__name__ for name, each in available.items() if isinstance(each, types.ModuleType)}
        values = {name: each for name, each in available.items() if name not in modules}
        self._sent_values = {
            name: encoded for name, each in values.items() if (encoded := self._encoded(each)) is not None
        }
        return [values, modules]

    def changed_names(self) -> dict[str, Any]:
        """See `Link`."""
        now = {name: self._encoded(self._module.__dict__.get(name)) for name in self._sent_values}
        changed = {name: each for name, each in now.items() if each is not None and each != self._sent_values[name]}
        self._sent_values |= changed
        return changed

    def _encoded(self, value: Any) -> Any:
        """Return the JSON of a value; None for an object that the other process has a proxy of, which stays valid."""
        if type(value) not in _VALUES:
            return None
        try:
            return self.encode(value)
        except Exception:
            return None

    def printed(self) -> list[str]:
        """See `Link`."""
        printed = [self._out.take(), self._errors.take()]
        return printed if any(printed) else []

    def _input(self, prompt: object = "", /) -> str:
        line: str = self.request("input", None, (str(prompt),), {})
        return line


class _Output(io.RawIOBase):
    """Standard output or error, buffered for the process of the tests."""

    def __init__(self) -> None:
        self._content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        self._content += piece[: _MOST_PRINTED - len(self._content)]
        return len(piece)

    def take(self) -> str:
        content, self._content = self._content, bytearray()
        return content.decode("utf-8", "replace")


class _Stdin(io.RawIOBase):
    """Standard input, read line by line from the process of the tests."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._rest:
            self._rest = self._link.request("readline", None, (), {}).encode("utf-8", "surrogatepass")
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _source(of: Any) -> str:
    import inspect

    return inspect.getsource(of)
