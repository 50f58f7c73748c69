"""The process of the code under test: called through pipes, it sees arguments and nothing else."""

from __future__ import annotations

from typing import Any

from rollmill.environments.code.inside.process import Pipe, set_dumpable, shortened, shown
from rollmill.environments.code.inside.values import decode, encode

_OPERATIONS: dict[str, Any] = {
    "call": lambda of, *arguments, **named: of(*arguments, **named),
    "getattr": getattr,
    "getitem": lambda of, key: of[key],
    "iter": iter,
    "len": len,
    "next": next,
}


def play_program(given: Pipe, calls: Pipe) -> None:
    """Loads the code that comes by `given` and answers `calls` until nobody asks."""
    set_dumpable(True)  # there is nothing to hide, and who watches over memory has to look in
    _Program(calls).play(given.receive())


class _Program:
    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._names: dict[str, Any] = {"__name__": "solution"}
        self._objects: list[Any] = []
        self._places: dict[int, int] = {}

    def play(self, given: dict[str, Any]) -> None:
        self._pipe.send({"load": self._load(given)})
        while True:
            self._pipe.send(self._answer(self._pipe.receive()))

    def _load(self, given: dict[str, Any]) -> str | None:
        try:
            exec(compile(given["prelude"], "<given>", "exec"), self._names)  # noqa: S102
            for name in given["names"]:
                self._names.pop(name, None)
            exec(compile(given["code"], "<code>", "exec"), self._names)  # noqa: S102
        except BaseException as error:
            return f"the code does not run: {shown(error)}"
        missing = [name for name in given["names"] if name not in self._names]
        return f"the code defines no {', '.join(missing)}" if missing else None

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            of = request["of"]
            target = self._names[of] if isinstance(of, str) else self._objects[of]
            arguments = [decode(each, self._objects.__getitem__) for each in request["args"]]
            named = {name: decode(each, self._objects.__getitem__) for name, each in request["kwargs"].items()}
            before = [encode(each, self._hold) for each in arguments]
            value = encode(_OPERATIONS[request["do"]](target, *arguments, **named), self._hold)
            after = [encode(each, self._hold) for each in arguments]
            changed = [[place, each] for place, each in enumerate(after) if each != before[place]]
            return {"value": value, "changed": changed}
        except BaseException as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            return {"raised": kinds, "said": shown(error), "text": _text(error)}

    def _hold(self, value: Any) -> Any:
        if id(value) not in self._places:  # what is held lives on, and keeps its id
            self._places[id(value)] = len(self._objects)
            self._objects.append(value)
        return [self._places[id(value)], type(value).__name__]


def _text(error: BaseException) -> str:
    try:
        return shortened(str(error))
    except BaseException:
        return ""
