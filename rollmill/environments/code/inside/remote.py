"""What stands in the tests for the code under test."""

from __future__ import annotations

import builtins
from typing import Any

from rollmill.environments.code.inside.process import Pipe, shortened, shown
from rollmill.environments.code.inside.values import decode, encode


class ProgramEnded(BaseException):
    """The code's process is gone, or says what is no answer. No `except Exception` of the tests catches it."""


class RaisedError(Exception):
    """What the code raised, where that is no exception of Python's own."""


class Remote:
    """A function or an object of the code. Equal to nothing but itself: whether things are equal is not its to say."""

    def __init__(self, link: PipeToCode, of: str | int, name: str) -> None:
        self._link, self._of, self._name = link, of, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it."""
        return self._link.ask("call", self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask("getattr", self, (name,), {})

    def __getitem__(self, key: Any) -> Any:
        return self._link.ask("getitem", self, (key,), {})

    def __iter__(self) -> Any:
        return self._link.ask("iter", self, (), {})

    def __next__(self) -> Any:
        return self._link.ask("next", self, (), {})

    def __len__(self) -> int:
        length: int = self._link.ask("len", self, (), {})
        return length

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{self._name}>"


class PipeToCode:
    """The tests' side of the pipes to the code."""

    def __init__(self, pipe: Pipe, *, telling: bool) -> None:
        self._pipe = pipe
        self._telling = telling
        self.asked = 0
        self.ended = False
        self.last = ""
        """The latest call in words, where `telling`."""

    def ask(self, what: str, of: Remote, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the code answers. Raises what it raised, `TypeError` for what cannot be passed, `ProgramEnded`."""
        if self.ended:
            raise ProgramEnded
        request: dict[str, Any] = {"do": what, "of": of._of, "args": [encode(each, _place) for each in args]}
        request["kwargs"] = {name: encode(each, _place) for name, each in kwargs.items()}
        called = _call(of, args, kwargs) if self._telling and what == "call" else ""
        value, error = self._exchange(request, args)
        if called:
            self.last = f"{called} {f'raises {shown(error)}' if error else f'is {shown(value)}'}"
        if error:
            raise error
        return value

    def _exchange(self, request: dict[str, Any], args: tuple[Any, ...]) -> tuple[Any, Exception | None]:
        try:
            self._pipe.send(request)
            answer = self._pipe.receive()
            self.asked += 1
            if "raised" in answer:
                return None, _error(answer)
            value = decode(answer["value"], self._held)
            for place, each in answer["changed"]:
                _change(args[place], decode(each, self._held))
        except Exception:
            self.ended = True
            raise ProgramEnded from None
        return value, None

    def _held(self, handle: Any) -> Remote:
        place, name = handle
        return Remote(self, int(place), shortened(str(name)))


def _place(value: Any) -> Any:
    if isinstance(value, Remote):
        return value._of
    raise TypeError(f"tests cannot pass a {type(value).__name__} to the code")


def _call(of: Remote, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    given = [*map(shown, args), *(f"{name}={shown(each)}" for name, each in kwargs.items())]
    return f"{of._name}({', '.join(given)})"


def _error(answer: dict[str, Any]) -> Exception:
    """The first of the error's kinds that Python has itself, so that tests can expect it."""
    for name in answer["raised"]:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
            try:
                return kind(str(answer["text"]))
            except TypeError:
                continue
    return RaisedError(str(answer["said"]))


def _change(mine: Any, now: Any) -> None:
    """What the code did to a list, a set or a dictionary that it was given."""
    if isinstance(mine, list):
        mine[:] = now
    elif isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(now)
