"""The process of the tests: runs them against code that is elsewhere."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from rollmill.environments.code.inside.process import MOST_SHOWN, Pipe, set_dumpable, shortened, shown
from rollmill.environments.code.inside.remote import PipeToCode, ProgramEnded, Remote

_TESTS = "<tests>"


def play_tester(given: Pipe, calls: Pipe) -> None:
    """Takes its tests from `given`, runs them against the code behind `calls`, and tells `given` the outcome."""
    tests = given.receive()
    if not tests["secret"]:
        set_dumpable(True)
    given.send(_outcome(tests, calls))


def _outcome(tests: dict[str, Any], calls: Pipe) -> dict[str, Any]:
    try:
        load = calls.receive()["load"]
    except Exception:
        return {"reason": "ended", "failures": ["the code ended its process"]}
    if load is not None:
        return {"reason": "load", "failures": [str(load)[: 2 * MOST_SHOWN]]}
    try:
        tree = ast.parse(tests["tests"])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"reason": "malformed", "failures": [f"the tests do not parse: {shown(error)}"]}
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        return {"reason": "malformed", "failures": ["the tests have no assert"]}
    return _Tester(tests, tree, PipeToCode(calls, telling=not tests["secret"])).run()


class _Tester:
    """Runs statement by statement, then the functions `check(candidate)` and `test...()` among them."""

    def __init__(self, tests: dict[str, Any], tree: ast.Module, link: PipeToCode) -> None:
        self._link = link
        self._tree = tree
        self._most = tests["most"]
        self._failures: list[str] = []
        self._reason = ""
        self._names: dict[str, Any] = {"__name__": "tests"}
        exec(compile(tests["prelude"], "<given>", "exec"), self._names)  # noqa: S102
        self._names.update({name: Remote(link, name, name) for name in tests["names"]})
        self._candidate = self._names["candidate"] = self._names[tests["names"][0]]

    def run(self) -> dict[str, Any]:
        """`reason` is `passed`, `wrong` (an assertion), `raised`, `ended`, `unused`; `failures` say where."""
        for statement in self._tree.body:
            self._try(lambda each=statement: self._execute(each))  # type: ignore[misc]
        for statement in self._tree.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "check":
                self._try(lambda: self._names["check"](self._candidate))
            elif isinstance(statement, ast.FunctionDef) and statement.name.startswith("test"):
                self._try(lambda name=statement.name: self._names[name]())  # type: ignore[misc]
        if self._link.ended:
            self._reason = "ended"
        elif not self._reason and not self._link.asked:
            self._reason, self._failures = "unused", ["the tests never call the code"]
        return {"reason": self._reason or "passed", "failures": self._failures}

    def _execute(self, statement: ast.stmt) -> None:
        exec(compile(ast.Module([statement], []), _TESTS, "exec"), self._names)  # noqa: S102

    def _try(self, call: Callable[[], Any]) -> None:
        if len(self._failures) >= self._most or self._link.ended:
            return
        self._link.last = ""
        try:
            call()
        except ProgramEnded as ended:
            self._failures.append(f"{self._place(ended)}; the code ended its process")
        except BaseException as error:
            wrong = isinstance(error, AssertionError)
            self._reason = self._reason or ("wrong" if wrong else "raised")
            said = [self._place(error), "" if wrong and not str(error) else shown(error), self._link.last]
            self._failures.append("; ".join(filter(None, said)))

    def _place(self, error: BaseException) -> str:
        """The statement of the tests in which an error came up."""
        line, trace = 0, error.__traceback__
        while trace:
            if trace.tb_frame.f_code.co_filename == _TESTS:
                line = trace.tb_lineno
            trace = trace.tb_next
        statements = [node for node in ast.walk(self._tree) if isinstance(node, ast.stmt)]
        around = [node for node in statements if node.lineno <= line <= (node.end_lineno or 0)]
        if not around:
            return "the tests fail"
        innermost = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)))
        return shortened(" ".join(ast.unparse(innermost).split()))
