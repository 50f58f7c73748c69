"""Agents of the code environment: one writes the code, one the tests."""

from __future__ import annotations

import ast
import random

from rollmill.environments.code.subject import find_function
from rollmill.environments.code.work import MALFORMED, CodeState
from rollmill.environments.environment import Step
from rollmill.environments.parsing import last_python
from rollmill.records import Message

_LONGEST = 20_000
_SHOWN = 4000
"""Most characters of code or tests in a prompt."""
_WRITE_CODE = """You write a Python function. Write the whole program, with its imports, in one block that begins with
a line ```python and ends with a line ```. Only the last block counts.

Example:
```python
def add(a, b):
    return a + b
```"""
_WRITE_TESTS = """You write tests for a Python function that somebody else writes. Write plain assert statements in one
block that begins with a line ```python and ends with a line ```. Only the last block counts.

Example:
```python
assert add(1, 2) == 3
assert add(-1, 1) == 0
```

Good tests hold for every right program and fail for wrong ones: think of edge cases, and be sure of each value."""


class CodeGenerator:
    """Writes the code. Its prompt has its last program, the tests, and their failures on it."""

    def __init__(self, work: CodeState, *, others: str) -> None:
        """Store the state; `others` is the title of the tests in the prompt ("Another programmer's tests")."""
        self._work = work
        self._others = others
        self._refused = ""

    def prompt(self) -> list[Message]:
        """See `Agent`."""
        work = self._work
        parts = [_problem(work), self._refused]
        if work.code:
            parts.append(f"Your last program:\n{_cut_block(work.code)}")
        if work.tests:
            parts.append(f"{self._others}:\n{_cut_block(work.tests)}")
        if work.load_failure:
            parts.append(f"Your program failed: {work.load_failure}")
        elif work.fit and not work.fit.passed:
            parts.append(f"What failed on your program:\n{_listed(work.fit.failures)}")
        if work.fit and work.fit.passed:
            parts.append("They pass on your program.")
        request = f"Write the function {work.subject.entry}."
        if work.code:
            request = f"Write the whole program again, better. Tests may be wrong: keep to the problem.\n{request}"
        return _messages(_WRITE_CODE, [*parts, request])

    def act(self, completion: str) -> Step:
        """Judge the program in a completion; see `CodeState.take_code`. Raises `SandboxError`.

        The reward is `MALFORMED` without a program.
        """
        code, self._refused = _read(completion)
        return self._work.take_code(code) if code else Step(MALFORMED, {"reason": self._refused})

    def oracle(self) -> str:
        """Return the reference solution. Raises `ValueError` where the problem has none."""
        if self._work.subject.reference is None:
            raise ValueError("the problem has no reference solution: give one as fields.canonical_solution or code")
        return _block(self._work.subject.reference)

    def random(self, rng: random.Random) -> str:
        """Return a function that ignores its arguments and returns a random number."""
        return _block(f"def {self._work.subject.entry}(*args, **kwargs):\n    return {rng.randrange(1000, 10**6)}\n")


class TestGenerator:
    """Writes the tests. Its prompt has its last tests, and their failures on the code."""

    def __init__(self, work: CodeState) -> None:
        self._work = work
        self._refused = ""

    def prompt(self) -> list[Message]:
        """See `Agent`."""
        work = self._work
        parts = [_problem(work), self._refused]
        if work.code:
            parts.append(f"The program under test begins with: {_signature(work)}")
        if work.tests:
            parts.append(f"Your last tests:\n{_cut_block(work.tests)}")
        if work.tests and work.fit and not work.fit.passed:
            parts.append(f"What failed on the program, which may be wrong itself:\n{_listed(work.fit.failures)}")
        return _messages(_WRITE_TESTS, [*parts, f"Write tests of the function {work.subject.entry}."])

    def act(self, completion: str) -> Step:
        """Judge the tests in a completion; see `CodeState.take_tests`. Raises `SandboxError`.

        The reward is `MALFORMED` without tests.
        """
        tests, self._refused = _read(completion)
        return self._work.take_tests(tests) if tests else Step(MALFORMED, {"reason": self._refused})

    def oracle(self) -> str:
        """Return the ground-truth tests."""
        return _block(self._work.subject.truth)

    def random(self, rng: random.Random) -> str:
        """Return assertions about random numbers."""
        entry = self._work.subject.entry
        return _block("".join(f"assert {entry}({rng.randrange(100)}) == {rng.randrange(1000, 10**6)}\n" for _ in "123"))


def _read(completion: str) -> tuple[str, str]:
    """Return the Python block and an empty text, or an empty text and the reason."""
    block = last_python(completion)
    if block is None or not block.strip():
        return "", "Your last answer had no closed ```python block."
    if len(block) > _LONGEST:
        return "", f"Your last answer was longer than {_LONGEST} characters."
    return block, ""


def _problem(work: CodeState) -> str:
    subject = work.subject
    named = "" if find_function(ast.parse(subject.prelude), subject.entry) else f"\n\n{subject.signature}"
    return f"Problem:\n{subject.text}{named}"


def _signature(work: CodeState) -> str:
    begins = f"def {work.subject.entry}("
    lines = [line for line in work.code.split("\n") if line.startswith(begins)]
    return lines[-1][:200] if lines else work.subject.signature


def _block(source: str) -> str:
    return f"```python\n{source.strip(chr(10))}\n```"


def _cut_block(source: str) -> str:
    return _block(f"{source[:_SHOWN]}\n..." if len(source) > _SHOWN else source)


def _listed(failures: tuple[str, ...]) -> str:
    return "\n".join(f"- {failure}" for failure in failures) or "- no more is known"


def _messages(system: str, parts: list[str]) -> list[Message]:
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": "\n\n".join(part for part in parts if part)},
    ]
