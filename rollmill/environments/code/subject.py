"""Read a programming problem: its text, ground-truth tests and reference solution."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from typing import Any, NamedTuple

from rollmill.environments.question import question_fault, question_text
from rollmill.records import Problem

_REFERENCES = ("canonical_solution", "code", "solution")
_BUILT_IN = frozenset(dir(builtins))
UNPARSED = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Exceptions of Python's parser; the last two for a text that is nested too deeply."""


class Subject(NamedTuple):
    """One programming problem."""

    text: str
    """Text of the problem in prompts."""
    prelude: str
    """Python code of the problem: imports and functions that code and tests may use. Empty if there is none."""
    names: tuple[str, ...]
    """Names that the tests call, the entry point first."""
    truth: str
    """The ground-truth tests."""
    reference: str | None
    """A complete program that solves the problem; None if the data have none."""

    @property
    def entry(self) -> str:
        """Return the name of the function to write."""
        return self.names[0]

    @property
    def signature(self) -> str:
        """Return the function's first line, with its parameters if the problem or the reference has them."""
        for source in (self.prelude, self.reference or ""):
            function = find_function(_parse(source), self.entry)
            if function:
                return f"def {self.entry}({ast.unparse(function.args)}):"
        return f"def {self.entry}(...):"


def read_subject(problem: Problem) -> Subject:
    """Read a problem with the fields of HumanEval (`test`, `entry_point`) or MBPP (`test_list`).

    `test` has assertions, or a function `check(candidate)`. The reference is `canonical_solution`, `code` or
    `solution`, or else the answer: a complete program, or the continuation of the prompt. Raises `ValueError` with the
    fault.
    """
    fault = question_fault(problem)
    if fault:
        raise ValueError(fault)
    fields = problem.fields
    truth = _read_tests(fields)
    tree = _parse(truth)
    if tree is None:
        raise ValueError("its tests are no Python")
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise ValueError("its tests have no assert")
    prelude = _read_prelude(problem)
    called = list(dict.fromkeys(_unknown_calls(tree, _parse(prelude))))
    entry = fields.get("entry_point")
    if entry is None and find_function(tree, "check"):
        raise ValueError("fields.entry_point is missing, and check(candidate) does not name it")
    if entry is None and not called:
        raise ValueError("fields.entry_point is missing, and the tests call nothing")
    if entry is not None and not (isinstance(entry, str) and entry.isidentifier()):
        raise ValueError("fields.entry_point is no name")
    names = tuple(called if entry is None else dict.fromkeys([entry, *called]))
    return Subject(question_text(problem), prelude, names, truth, _read_reference(problem, names[0]))


def find_function(tree: ast.AST | None, name: str) -> ast.FunctionDef | None:
    """Return the last top-level function with this name; None if there is none."""
    definition = None
    for node in tree.body if isinstance(tree, ast.Module) else ():
        if isinstance(node, ast.FunctionDef) and node.name == name:
            definition = node
    return definition


def defines(program: str, name: str) -> bool:
    """Return whether a program parses and binds a name anywhere."""
    return name in _defined(_parse(program))


def _read_tests(fields: dict[str, Any]) -> str:
    for name in ("test", "test_list"):
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
            return "\n".join(value)
    raise ValueError("fields.test and fields.test_list are missing or no text")


def _read_prelude(problem: Problem) -> str:
    """Return HumanEval's prompt, which is Python code, or MBPP's `test_setup_code` and `test_imports`."""
    imports = problem.fields.get("test_imports")
    parts = [each for each in imports if isinstance(each, str)] if isinstance(imports, list) else []
    setup = problem.fields.get("test_setup_code")
    parts += [setup] if isinstance(setup, str) else []
    prompt = problem.prompt if isinstance(problem.prompt, str) else ""
    tree = _parse(prompt)
    if tree and any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body):
        parts.append(prompt)
    prelude = "\n".join(parts)
    return prelude if _parse(prelude) else ""  # the parts may parse alone, but not together


def _read_reference(problem: Problem, entry: str) -> str | None:
    values = [problem.fields.get(name) for name in _REFERENCES] + [problem.answer]
    for value in values:
        if not isinstance(value, str) or not value.strip():
            continue
        prompt = problem.prompt if isinstance(problem.prompt, str) else ""
        # HumanEval's solution is the function's body only.
        for program in (value, prompt + value):
            if find_function(_parse(program), entry) or (entry in _defined(_parse(program))):
                return program
    return None


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except UNPARSED:
        return None


def _defined(tree: ast.AST | None) -> set[str]:
    """Return all names that a module binds, anywhere."""
    names = set()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
    return names


def _unknown_calls(tests: ast.Module, prelude: ast.Module | None) -> Iterator[str]:
    known = _defined(tests) | _defined(prelude) | _BUILT_IN
    names = [node.func for node in ast.walk(tests) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    for name in sorted(names, key=lambda name: (name.lineno, name.col_offset)):
        if name.id not in known:
            yield name.id
