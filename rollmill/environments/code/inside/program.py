"""The process of the code under test: called through pipes, it sees arguments and nothing else."""

from __future__ import annotations

import builtins
import io
import linecache
import sys
import types
from typing import Any

from rollmill.environments.code.inside.link import OPERATIONS, Link
from rollmill.environments.code.inside.process import Pipe, set_dumpable, shown
from rollmill.environments.code.inside.values import given_classes

_NAME, _FILE = "solution", "<code>"
_VALUES = frozenset({bool, int, float, str, list, dict, tuple, set})
"""Types of what a program counts and collects in."""
_MOST_PRINTED = 1 << 20
"""Bytes between two messages; more is dropped."""


def play_program(given: Pipe, calls: Pipe) -> None:
    """Load the code that arrives on `given` and answer `calls` until the pipe is closed."""
    set_dumpable(True)  # there is nothing to hide, and who watches over memory has to look in
    _Program(calls, given.receive()).serve()


class _Program(Link):
    def __init__(self, pipe: Pipe, given: dict[str, Any]) -> None:
        super().__init__(pipe, {**OPERATIONS, "load": _Program.load, "names": _Program.find, "source": _source})
        self._code = given
        self._module = types.ModuleType(_NAME)
        self._told: dict[str, Any] = {}
        self._out, self._errors = _Printed(), _Printed()
        sys.stdout = io.TextIOWrapper(self._out, "utf-8", "surrogatepass", newline="\n", write_through=True)
        sys.stderr = io.TextIOWrapper(self._errors, "utf-8", "surrogatepass", newline="\n", write_through=True)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Typed(self)), "utf-8", "surrogatepass")
        builtins.input = self._input

    def load(self) -> str | None:
        """Run the code, and return why it cannot be used, if so."""
        names = self._module.__dict__
        names["__file__"] = _FILE
        # Classes name their module: pickle, dataclasses, enum and typing look it up.
        sys.modules[_NAME] = sys.modules["__main__"] = self._module
        linecache.cache[_FILE] = (len(self._code["code"]), None, self._code["code"].splitlines(True), _FILE)
        try:
            # Without `dont_inherit`, the future statements of this very file would hold in the code.
            exec(compile(self._code["prelude"], "<given>", "exec", dont_inherit=True), names)  # noqa: S102
            for name in self._code["names"]:
                names.pop(name, None)
            exec(compile(self._code["code"], _FILE, "exec", dont_inherit=True), names)  # noqa: S102
        except BaseException as error:
            return f"the code does not run: {shown(error)}"
        missing = [name for name in self._code["names"] if name not in names]
        self.given = given_classes(self._code["prelude"], self._code["names"], names)
        self.printed()
        return f"the code defines no {', '.join(missing)}" if missing else None

    def find(self, wanted: list[str]) -> list[dict[str, Any]]:
        """Return those of the names that the code defines: the values, and the names of modules."""
        found = {name: self._module.__dict__[name] for name in wanted if name in self._module.__dict__}
        modules = {name: each.__name__ for name, each in found.items() if isinstance(each, types.ModuleType)}
        values = {name: each for name, each in found.items() if name not in modules}
        self._told = {name: encoded for name, each in values.items() if (encoded := self._encoded(each)) is not None}
        return [values, modules]

    def changed_names(self) -> dict[str, Any]:
        """See `Link`."""
        now = {name: self._encoded(self._module.__dict__.get(name)) for name in self._told}
        changed = {name: each for name, each in now.items() if each is not None and each != self._told[name]}
        self._told |= changed
        return changed

    def _encoded(self, value: Any) -> Any:
        """Return a value for the other process; None for what it knows as an object, which stays the same."""
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
        line: str = self.ask("input", None, (str(prompt),), {})
        return line


class _Printed(io.RawIOBase):
    """Standard output or error, kept for the process of the tests."""

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


class _Typed(io.RawIOBase):
    """Standard input: that of the process of the tests, a line at a time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._rest:
            self._rest = self._link.ask("readline", None, (), {}).encode("utf-8", "surrogatepass")
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _source(of: Any) -> str:
    import inspect

    return inspect.getsource(of)
