"""Wrong variants of a reference solution: what good tests find."""

from __future__ import annotations

import ast
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from rollmill.environments.code.checking import Case, Checker
from rollmill.environments.code.subject import Subject

_TRIED = 24
"""Mutations that are looked at until enough are found."""
_TRIED_AT_ONCE = 8
_LONGEST_S = 2.0
"""What takes longer counts as endless."""
_KEPT = 1000

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.BitXor: ast.BitOr, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "len", "sorted": "list"}


def mutations(source: str) -> Iterator[str]:
    """Programs that differ from `source` in one place: an operator, a constant, a condition, a function called.

    In the order of the places; docstrings, annotations, default values, imports and decorators stay.
    """
    before = ast.unparse(ast.parse(source))
    place = 0
    while True:
        mutator = _Mutator(place)
        tree = mutator.visit(ast.parse(source))
        if not mutator.done:
            return
        place += 1
        after = ast.unparse(ast.fix_missing_locations(tree))
        if after != before:
            yield after


def find_mutants(subject: Subject, checker: Checker, wanted: int) -> tuple[str, ...]:
    """Up to `wanted` mutants of the reference that the ground-truth tests find, and that end; drawn by its content.

    Where no mutation is one, a function that returns None. None at all where the reference fails the tests itself.
    Found once for a problem and kept. Raises `SandboxError`.
    """
    return _known.get((subject, wanted, checker.timeout_s), lambda: _find(subject, checker, wanted))


def _find(subject: Subject, checker: Checker, wanted: int) -> tuple[str, ...]:
    reference = subject.reference or ""
    limit_s = min(checker.timeout_s, _LONGEST_S)
    if not checker.check([Case(reference, subject.truth, secret=True)])[0].passed:
        return ()
    candidates = list(dict.fromkeys(mutations(reference)))
    random.Random(reference).shuffle(candidates)
    candidates = candidates[:_TRIED]
    found: list[str] = []
    while candidates and len(found) < wanted:
        tried, candidates = candidates[:_TRIED_AT_ONCE], candidates[_TRIED_AT_ONCE:]
        found += _killed(tried, subject, checker, limit_s)
    nothing = f"{reference}\n\ndef {subject.entry}(*_, **__):\n    return None\n"
    return tuple(found[:wanted] or _killed([nothing], subject, checker, limit_s))


def _killed(sources: list[str], subject: Subject, checker: Checker, limit_s: float) -> list[str]:
    outcomes = checker.check([Case(source, subject.truth, secret=True) for source in sources], timeout_s=limit_s)
    return [source for source, each in zip(sources, outcomes, strict=True) if each.reason in {"wrong", "raised"}]


class _Mutator(ast.NodeTransformer):
    """Makes the mutation of that number; `done` where there is one."""

    def __init__(self, place: int) -> None:
        self._left = place
        self.done = False

    def visit(self, node: ast.AST) -> ast.AST:
        if self.done or isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr):
            return node
        for mutated in _alternatives(node):
            self._left -= 1
            if self._left < 0:
                self.done = True
                return mutated
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self._visit_body(node)
            return node
        if isinstance(node, ast.AnnAssign):
            node.value = self.visit(node.value) if node.value else None  # type: ignore[assignment]
            return node
        return self.generic_visit(node)

    def _visit_body(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        first = 1 if ast.get_docstring(node, clean=False) is not None else 0
        node.body[first:] = [self.visit(each) for each in node.body[first:]]  # type: ignore[misc]


def _alternatives(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
        yield ast.Compare(node.left, [_COMPARED[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
        yield ast.BinOp(node.left, _COMPUTED[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _COMPUTED:
        yield ast.AugAssign(node.target, _COMPUTED[type(node.op)](), node.value)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.If | ast.IfExp):
        yield type(node)(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)  # type: ignore[arg-type]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLED:
        yield ast.Call(ast.Name(_CALLED[node.func.id], ast.Load()), node.args, [])
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node.value)


def _other_constants(value: object) -> Iterator[ast.Constant]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield ast.Constant(value + 1)
    elif isinstance(value, str):
        yield ast.Constant("" if value else "x")


class _Known:
    """Mutants by problem: each is looked for once, however many episodes ask for it at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[object, Future[tuple[str, ...]]] = OrderedDict()

    def get(self, key: object, find: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        with self._lock:
            future = self._found.get(key)
            mine = future is None
            if future is None:
                future = self._found[key] = Future()
                while len(self._found) > _KEPT:
                    self._found.popitem(last=False)
        if mine:
            try:
                future.set_result(find())
            except BaseException as error:
                with self._lock:
                    self._found.pop(key, None)
                future.set_exception(error)
        return future.result()


_known = _Known()
