"""Mutation testing: make wrong variants of a reference solution, which good tests detect."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator

from rollmill.environments.code.checking import Case, Checker
from rollmill.environments.code.references import ResultCache
from rollmill.environments.code.subject import Subject

_TRIED = 24
"""Most mutations that are tried per problem."""
_TRIED_AT_ONCE = 8
_LONGEST_S = 2.0
"""Time limit of a mutant in seconds; one that exceeds it is assumed not to terminate."""

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.BitXor: ast.BitOr, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "len", "sorted": "list"}


def mutations(source: str) -> Iterator[str]:
    """Yield programs that differ from `source` in one operator, constant, condition or called function.

    They come in the order of their positions. Docstrings, annotations, default values, imports and decorators are not
    mutated.
    """
    before = ast.unparse(ast.parse(source))
    index = 0
    while True:
        mutator = _Mutator(index)
        tree = mutator.visit(ast.parse(source))
        if not mutator.done:
            return
        index += 1
        after = ast.unparse(ast.fix_missing_locations(tree))
        if after != before:  # a mutation may be without effect, such as "" for ""
            yield after


def find_mutants(subject: Subject, checker: Checker, count: int) -> tuple[str, ...]:
    """Return up to `count` mutants of the reference that terminate and that the ground-truth tests detect.

    They are sampled with the reference as the seed. If no mutation qualifies, the mutant is a function that returns
    None; if the reference itself fails the tests, there is none. Cached by problem. Raises `SandboxError`.
    """
    return _cache.get((subject, count, checker.timeout_s), lambda: _find(subject, checker, count))


def _find(subject: Subject, checker: Checker, count: int) -> tuple[str, ...]:
    reference = subject.reference or ""
    limit_s = min(checker.timeout_s, _LONGEST_S)
    if not checker.check([Case(reference, subject.truth, secret=True)])[0].passed:
        return ()
    candidates = list(dict.fromkeys(mutations(reference)))
    random.Random(reference).shuffle(candidates)
    candidates = candidates[:_TRIED]
    killed: list[str] = []
    # In batches, since most mutations are detected and the rest need not be run.
    while candidates and len(killed) < count:
        tried, candidates = candidates[:_TRIED_AT_ONCE], candidates[_TRIED_AT_ONCE:]
        killed += _detected(tried, subject, checker, limit_s)
    nothing = f"{reference}\n\ndef {subject.entry}(*_, **__):\n    return None\n"
    return tuple(killed[:count] or _detected([nothing], subject, checker, limit_s))


def _detected(sources: list[str], subject: Subject, checker: Checker, limit_s: float) -> list[str]:
    """Return the programs on which the ground-truth tests fail by an assertion or exception.

    Args:
        sources: Programs.
        subject: The problem, with the tests.
        checker: Runs the tests.
        limit_s: Time limit of each program in seconds.
    """
    outcomes = checker.check([Case(source, subject.truth, secret=True) for source in sources], timeout_s=limit_s)
    return [source for source, each in zip(sources, outcomes, strict=True) if each.reason in {"wrong", "raised"}]


class _Mutator(ast.NodeTransformer):
    """Applies the mutation with a given number; `done` is true if it exists."""

    def __init__(self, index: int) -> None:
        self._left = index
        self.done = False

    def visit(self, node: ast.AST) -> ast.AST:
        # The parts of an f-string are constants whose mutation may not be valid syntax.
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
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        yield ast.Compare(node.left, [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
        yield ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.If | ast.IfExp):
        yield type(node)(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)  # type: ignore[arg-type]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        yield ast.Call(ast.Name(_FUNCTIONS[node.func.id], ast.Load()), node.args, [])
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


_cache: ResultCache[tuple[str, ...]] = ResultCache()
