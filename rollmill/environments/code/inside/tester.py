"""Process of the tests: runs them against code in another process."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from rollmill.environments.code.inside.link import OPERATIONS, Link
from rollmill.environments.code.inside.mirror import SPECIALS, ProgramEnded, is_remote
from rollmill.environments.code.inside.process import MOST_SHOWN, Pipe, describe, set_dumpable, truncated
from rollmill.environments.code.inside.values import import_module, shared_classes

_NAME, _TESTS = "tests", "<tests>"
_NAMES = ("__name__", "__qualname__", "__doc__")
"""Attributes that the code may read of any function."""
_MOST_COMPARED = 4
"""Most pairs of equal objects whose equality is checked."""


def run_tester(control: Pipe, calls: Pipe) -> None:
    """Read the tests from `control`, run them against the code behind `calls`, and write the outcome to `control`."""
    tests = control.receive()
    if not tests["secret"]:
        set_dumpable(True)
    control.send(_outcome(tests, calls))


def _outcome(tests: dict[str, Any], calls: Pipe) -> dict[str, Any]:
    link = _LinkToCode(calls, with_calls=not tests["secret"])
    try:
        load = link.request("load", None, (), {})
    except BaseException:
        return {"reason": "ended", "failures": ["the code ended its process"]}
    if load is not None:
        return {"reason": "load", "failures": [str(load)[: 2 * MOST_SHOWN]]}
    try:
        tree = ast.parse(tests["tests"])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"reason": "malformed", "failures": [f"the tests do not parse: {describe(error)}"]}
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        return {"reason": "malformed", "failures": ["the tests have no assert"]}
    try:
        tester = _Tester(tests, tree, link)
    except ProgramEnded:
        return {"reason": "ended", "failures": ["the code ended its process"]}
    return tester.run()


class _LinkToCode(Link):
    """The tests' end of the link. The code may use objects that the tests pass to it, and may not inspect them."""

    guarded = True

    def __init__(self, pipe: Pipe, *, with_calls: bool) -> None:
        super().__init__(pipe, {**OPERATIONS, "input": _input, "readline": lambda _: sys.stdin.readline()})
        self._with_calls = with_calls
        self.shared: dict[str, Any] = {}
        """Global names of the tests."""
        self.live: frozenset[str] = frozenset()
        """Global names of the tests that follow the values of the code's global names."""
        self.last = ""
        """Text of the latest call, if `with_calls`."""

    def request(self, operation: str, of: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Request an operation, and record the text of a call.

        Args:
            operation: Name of the operation.
            of: Proxy of the object.
            args: Positional arguments.
            kwargs: Keyword arguments.
        """
        if not self._with_calls or operation != "call":
            return super().request(operation, of, args, kwargs)
        name = of.__name__ if isinstance(of, type) else of._rollmill_name
        arguments = [*map(describe, args), *(f"{key}={describe(each)}" for key, each in kwargs.items())]
        called = f"{name}({', '.join(arguments)})"
        try:
            value = super().request(operation, of, args, kwargs)
        except Exception as error:
            self.last = f"{called} raises {describe(error)}"
            raise
        self.last = f"{called} is {describe(value)}"
        return value

    def check_sendable(self, value: Any) -> None:
        """See `Link`."""
        if not (_is_tests_class(value) or callable(value) or isinstance(value, Iterator)):
            raise TypeError(f"tests cannot pass a {type(value).__name__} to the code")

    def check_allowed(self, operation: str, target: Any, args: list[Any]) -> None:
        """Allow the code to call its arguments and to use public attributes of the tests' own classes."""
        name = args[0] if operation in {"special", "getattr", "setattr", "delattr"} else ""
        if target is self:
            allowed = operation in {"input", "readline"}
        elif operation == "special":
            allowed = name in SPECIALS and (_is_tests_class(target) or name in {"__next__", "__iter__"})
        elif operation in {"getattr", "setattr", "delattr"}:
            allowed = name in _NAMES or (_is_tests_class(target) and isinstance(name, str) and not name.startswith("_"))
        elif operation == "call":
            allowed = _is_tests_class(target) or not isinstance(target, type)
        else:
            allowed = operation in OPERATIONS
        if not allowed:
            raise (AttributeError if operation == "getattr" else TypeError)(
                f"the code cannot {operation} {name} of what it was passed"
            )

    def write_output(self, text: str, errors: str) -> None:
        """See `Link`."""
        for file, written in ((sys.stdout, text), (sys.stderr, errors)):
            if written:
                file.write(written)

    def update_names(self, values: dict[str, Any]) -> None:
        """See `Link`."""
        self.shared.update({name: each for name, each in values.items() if name in self.live})

    def find_degenerate_class(self) -> str:
        """Return the name of a class of the code whose instances are all equal; empty if there is none.

        An object that the tests constructed is constructed again with other arguments. An object that was equal to it
        must not be equal to all of these.
        """
        for pair in self.equal[:_MOST_COMPARED]:
            for left, right in (pair, pair[::-1]):
                construction = self.constructed.get(right._rollmill_of)
                if construction and self._equals_all(left, *construction):
                    return str(type(right).__name__)
        return ""

    def _equals_all(self, candidate: Any, kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether an object equals all instances of a class with varied arguments.

        Args:
            candidate: The object.
            kind: The class.
            args: Positional arguments of the original instance.
            kwargs: Keyword arguments of the original instance.
        """
        equal = []
        for other_args, other_kwargs in _variants(args, kwargs):
            try:
                sibling = kind(*other_args, **other_kwargs)
            except Exception:  # noqa: S112 - arguments that the class refuses prove nothing
                continue
            equal.append(is_remote(sibling) and candidate == sibling)
        return bool(equal) and all(equal)


def _variants(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield copies of the arguments with one of them replaced."""
    for index, each in enumerate(args):
        for varied in _other_values(each):
            yield (*args[:index], varied, *args[index + 1 :]), kwargs
    for name, each in kwargs.items():
        for varied in _other_values(each):
            yield args, {**kwargs, name: varied}


def _other_values(value: Any) -> list[Any]:
    """Return a different value of the same type, if there is one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float, complex)):
        return [value + 1]
    if isinstance(value, str):
        return [value + "x"]
    if isinstance(value, (list, tuple)):
        return [type(value)([each, *value[1:]]) for each in _other_values(value[0])] if value else []
    return []


def _input(_: Any, prompt: str) -> str:
    return input(prompt)


def _is_tests_class(value: Any) -> bool:
    """Return whether the tests define this class, or the class of this object."""
    return (value if isinstance(value, type) else type(value)).__module__ == _NAME


class _Tester:
    """Runs the tests statement by statement, then their functions `check(candidate)` and `test...()`."""

    def __init__(self, tests: dict[str, Any], tree: ast.Module, link: _LinkToCode) -> None:
        self._link = link
        self._tree = tree
        self._most = tests["most"]
        self._failures: list[str] = []
        self._reason = ""
        module = sys.modules[_NAME] = types.ModuleType(_NAME)
        self._names = module.__dict__
        # Without `dont_inherit`, the `__future__` imports of this file would apply to the tests.
        exec(compile(tests["prelude"], "<given>", "exec", dont_inherit=True), self._names)  # noqa: S102
        self._flags = _future_flags(tree)
        link.shared_classes = shared_classes(tests["prelude"], tests["names"], self._names)
        self._bind(tests["names"])
        self._candidate = self._names["candidate"] = self._names[tests["names"][0]]
        link.calls = 0  # requests for names are no calls of the code
        _patch_inspect(link)

    def _bind(self, called: list[str]) -> None:
        """Bind the names that the tests use and the code defines: functions, and others such as exceptions.

        Names of the problem's prelude, built-in names and modules are never taken from the code.
        """
        nodes = list(ast.walk(self._tree))
        loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        needed = loaded - set(called) - set(dir(builtins)) - set(self._names)
        values, modules = self._link.request("names", None, ([*called, *sorted(needed)],), {})
        namespaces = {
            node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        for name in needed & set(modules):
            try:
                self._names[name] = import_module(modules[name])
            except ValueError:
                continue
        for name in (needed & set(values)) | set(called):
            # A namespace of comparison functions, such as `np`, would decide instead of the tests.
            if name in called or name not in namespaces or name[:1].isupper():
                self._names[name] = values[name]
        self._link.shared = self._names
        self._link.live = frozenset(needed & set(values)) - namespaces - _bound(nodes) - set(called)

    def run(self) -> dict[str, Any]:
        """Run the tests and return `reason` and `failures`.

        `reason` is `passed`, `wrong` (an assertion), `raised`, `ended` or `unused`; `failures` lists the failed
        statements.
        """
        for statement in self._tree.body:
            self._try(lambda each=statement: self._execute(each))  # type: ignore[misc]
        for statement in self._tree.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "check":
                self._try(lambda: self._names["check"](self._candidate))
            elif isinstance(statement, ast.FunctionDef) and statement.name.startswith("test"):
                self._try(lambda name=statement.name: self._names[name]())  # type: ignore[misc]
        if self._link.ended:
            self._reason = "ended"
        # Tests that never use the code would pass for every program.
        elif not self._reason and not self._link.calls:
            self._reason, self._failures = "unused", ["the tests never call the code"]
        elif not self._reason:
            self._try(self._check_equality)
        return {"reason": self._reason or "passed", "failures": self._failures}

    def _execute(self, statement: ast.stmt) -> None:
        code = compile(ast.Module([statement], []), _TESTS, "exec", flags=self._flags, dont_inherit=True)
        exec(code, self._names)  # noqa: S102

    def _check_equality(self) -> None:
        name = self._link.find_degenerate_class()
        if name:
            raise AssertionError(f"objects of {name} are equal whatever they are made of")

    def _try(self, call: Callable[[], Any]) -> None:
        if len(self._failures) >= self._most or self._link.ended:
            return
        self._link.last = ""
        try:
            call()
        except ProgramEnded as ended:
            self._failures.append(f"{self._location(ended)}; the code ended its process")
        except BaseException as error:
            wrong = isinstance(error, AssertionError)
            self._reason = self._reason or ("wrong" if wrong else "raised")
            parts = [self._location(error), "" if wrong and not str(error) else describe(error), self._link.last]
            self._failures.append("; ".join(filter(None, parts)))

    def _location(self, error: BaseException) -> str:
        """Return the statement of the tests that raised an error."""
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
        return truncated(" ".join(ast.unparse(innermost).split()))


def _bound(nodes: list[ast.AST]) -> set[str]:
    """Return all names that the tests themselves bind, anywhere."""
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    # Functions, classes, caught errors and captures of patterns.
    bound |= {name for node in nodes for key in ("name", "rest") if isinstance(name := getattr(node, key, None), str)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return bound | {(node.asname or node.name).split(".")[0] for node in nodes if isinstance(node, ast.alias)}


def _future_flags(tree: ast.Module) -> int:
    """Return the compiler flags of the tests' `__future__` imports, since each statement is compiled by itself."""
    import __future__

    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for name in node.names:
                flags |= getattr(getattr(__future__, name.name, None), "compiler_flag", 0)
    return flags


def _patch_inspect(link: Link) -> None:
    """Make `inspect.getsource` work for objects of the code, whose source is in the other process."""
    original = inspect.getsource

    def getsource(of: Any) -> str:
        return str(link.request("source", of, (), {})) if is_remote(of) else original(of)

    inspect.getsource = getsource  # type: ignore[assignment]
