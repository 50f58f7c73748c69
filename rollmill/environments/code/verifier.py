"""The verifier `code`: judges a completion's program by tests in a sandbox."""

from __future__ import annotations

import ast
import asyncio
import re
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from rollmill.environments.code.checking import Case, Checker
from rollmill.environments.code.input_output_tests import InputOutputTests, find_failed_test, read_input_output_tests
from rollmill.environments.code.references import ResultCache, require_sound
from rollmill.environments.code.subject import UNPARSED, Subject, defines, read_subject
from rollmill.environments.python_runs import bubblewrap_python
from rollmill.environments.tools import PythonRunner
from rollmill.records import Problem, Verdict
from rollmill.sandboxes.sandbox import SandboxError
from rollmill.verifiers.answer_tag import answer_or_all, encodable
from rollmill.verifiers.failure import VerifierFailed
from rollmill.verifiers.registry import VerifierEntry

ENTRY = VerifierEntry("code", "CodeVerifier", "tests in a sandbox pass on the program")

TIMEOUT_S = 10.0
"""Time limit in seconds of all assertions of a problem, or of one input of a program."""
_LONGEST = 500_000
"""Most characters of an answer or of a problem's solutions, since the memory of Python's parser is not limited."""
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
_CLASS = "Solution"
_SETUP = (
    "from typing import *\nfrom collections import *\nimport math, itertools, functools, heapq, bisect, re, string\n"
)
"""Imports for programs with tests of functions, as the data sets' own judges have them."""
_PYTHON = {"", "python", "py", "python3", "py3", "python2"}
_references: ResultCache[str | None] = ResultCache()


class CodeVerifier:
    """Accepts a completion whose program passes the problem's tests.

    The tests are those of HumanEval (`test`, `entry_point`), of MBPP (`test_list`), or pairs of input and output, see
    `read_input_output_tests`. The program is the last fenced block that defines the names that the tests call, or the
    whole completion; for a prompt that is Python code, it may also be the continuation of the prompt. The problem's own
    solution is run first; if it fails, no completion is judged. The distance is 0 or 1.
    """

    name = "code"
    version = "1"
    without_answers = True

    def __init__(self, *, python: PythonRunner | None = None) -> None:
        """Store the runner of programs; None starts bubblewrap on this machine when the verifier is entered."""
        self._python = python
        self._closing = ExitStack()

    async def __aenter__(self) -> Self:
        if self._python is None:
            self._python = await asyncio.to_thread(self._closing.enter_context, bubblewrap_python(timeout_s=TIMEOUT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._closing.close)

    def problem_fault(self, problem: Problem) -> str | None:
        """Return why the problem has no usable tests, or None if it has."""
        try:
            _read(problem)
        except ValueError as fault:
            return str(fault)
        return None

    async def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge a completion. Raises `VerifierFailed` if the sandbox or the problem is at fault."""
        return await asyncio.to_thread(self._verify, problem, completion)

    def _verify(self, problem: Problem, completion: str) -> Verdict:
        assert self._python is not None, "the verifier is not open"
        try:
            tests = _read(problem)
            code = read_program(completion, tests)
            reason = _find_failure(self._python, problem, tests, code)
        except SandboxError as error:
            raise VerifierFailed("verifier_unavailable", f"{error.type}: {error}") from error
        except ValueError as fault:
            raise VerifierFailed("problem_refused", f"{problem.instance_id}: {fault}") from None
        if code is None:
            return Verdict(
                verifier="code@1", status="unparseable", reason="there is no program", reward=0.0, success=False
            )
        right = reason is None
        return Verdict(
            verifier="code@1",
            status="ok",
            distance=0.0 if right else 1.0,
            reason=reason,
            reward=1.0 if right else 0.0,
            success=right,
        )


def read_program(completion: str, tests: Subject | InputOutputTests) -> str | None:
    """Return the program of a completion; None if there is none."""
    text = answer_or_all(completion)
    if len(text) > _LONGEST:
        return None
    blocks = _blocks(text)
    entry = tests.entry if isinstance(tests, Subject) else None
    for block in reversed(blocks):
        if entry is None or defines(block, entry):
            return block
    candidates = [blocks[-1]] if blocks else [text]
    if isinstance(tests, Subject):
        (code,) = candidates
        begun = tests.prelude.rstrip("\n")
        # A body that continues the prompt: stripping removed the indentation of its first line, or it has none.
        candidates += [f"{begun}\n{body}" for body in (code, f"    {code}", _indented(code))]
        if program := next((each for each in candidates if defines_more(each, tests)), None):
            return program
    if blocks:
        return blocks[-1]
    return encodable(text) if text.strip() and _parses(text) else None


def defines_more(program: str, subject: Subject) -> bool:
    """Return whether a program defines the entry point, and is more than the prompt's own stub of it."""
    if not defines(program, subject.entry) or program.strip() == subject.prelude.strip():
        return False
    try:
        return not _returns_outside(ast.parse(program))
    except RecursionError:
        return False


def _returns_outside(node: ast.AST) -> bool:
    """Return whether there is a `return` outside of a function, which Python's parser accepts."""
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, inner)]
    return any(isinstance(child, ast.Return) or _returns_outside(child) for child in children)


def _blocks(text: str) -> list[str]:
    """Return the fenced blocks that may be Python, in order; an unclosed block extends to the end."""
    blocks, opened = [], None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2]:
            blocks.append((opened[2].lower(), text[opened.end() + 1 : fence.start()]))
            opened = None
    if opened is not None:
        blocks.append((opened[2].lower(), text[opened.end() + 1 :]))
    return [encodable(content) for language, content in blocks if language in _PYTHON and content.strip()]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line.strip() else line for line in text.split("\n"))


def _parses(text: str) -> bool:
    try:
        return bool(ast.parse(text).body)
    except UNPARSED:
        return False


def _read(problem: Problem) -> Subject | InputOutputTests:
    """Return a problem's tests. Raises `ValueError` with the fault."""
    pairs = read_input_output_tests(problem)
    if pairs is None:
        return read_subject(problem)
    if pairs.function is None:
        return pairs
    reference = _reference(problem)
    fields = {
        **problem.fields,
        "test": pairs.as_assertions(),
        "entry_point": pairs.function,
        "test_setup_code": problem.fields.get("test_setup_code") or _SETUP,
        "canonical_solution": None if reference is None else as_function(reference, pairs.function),
    }
    return read_subject(problem.model_copy(update={"fields": fields}))


def _are_pairs(problem: Problem, tests: Subject) -> bool:
    """Return whether the tests of a function were made from pairs of input and output."""
    return "test_list" not in problem.fields and problem.fields.get("test") != tests.truth


def as_function(program: str, name: str) -> str:
    """Add a function that calls the method `name` of a class `Solution`, as in LeetCode; else return the program."""
    try:
        body = ast.parse(program).body
    except UNPARSED:
        return program
    if any(isinstance(node, ast.FunctionDef) and node.name == name for node in body):
        return program
    classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == _CLASS]
    methods = {node.name for each in classes for node in each.body if isinstance(node, ast.FunctionDef)}
    if name not in methods:
        return program
    return f"{program}\n\ndef {name}(*args):\n    return {_CLASS}().{name}(*args)\n"


def _find_failure(
    python: PythonRunner, problem: Problem, tests: Subject | InputOutputTests, code: str | None
) -> str | None:
    """Return why a program fails; None if it passes. Raises `VerifierFailed` if the problem's reference fails.

    Args:
        python: Runs programs.
        problem: The problem.
        tests: Its tests.
        code: The program; None to check the problem alone.
    """
    if isinstance(tests, Subject):
        checker = Checker(python, tests)
        require_sound(tests, checker)
        if code is None:
            return "there is no program"
        if _are_pairs(problem, tests):
            code = as_function(code, tests.entry)
        # Secret, so that the verdict's reason, which later prompts may contain, does not quote the tests.
        (outcome,) = checker.check([Case(code, tests.truth, secret=True)])
        return None if outcome.passed else "; ".join([outcome.reason, *outcome.failures])
    reference = _reference(problem)
    if reference is not None:
        fault = _references.get(
            (reference, tests.tests), lambda: find_failed_test(python, reference, tests.tests, timeout_s=TIMEOUT_S)
        )
        if fault:
            raise VerifierFailed("problem_refused", f"the problem's own reference solution fails its tests ({fault})")
    return None if code is None else find_failed_test(python, code, tests.tests, timeout_s=TIMEOUT_S)


def _reference(problem: Problem) -> str | None:
    """Return the first Python solution of a problem with inputs and outputs; None if it has none."""
    values = [problem.fields.get(name) for name in ("canonical_solution", "code", "solution", "solutions")]
    for value in values:
        if isinstance(value, str) and len(value) > _LONGEST:
            continue
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = ast.literal_eval(value)
            except UNPARSED:
                continue
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str) and first.strip() and _parses(first):
            return first
    return None
