from __future__ import annotations

import ast
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollmill.environments.code.checking import Case, Checker
from rollmill.environments.code.mutants import find_mutants, mutations
from rollmill.environments.code.references import ResultCache
from rollmill.environments.code.subject import read_subject
from rollmill.environments.python_runs import SandboxedPython
from rollmill.records import Problem
from rollmill.sandboxes.sandbox import SandboxError
from tests.environments.code.conftest import make_problem


def test_each_mutation_changes_one_place() -> None:
    source = (
        "import os\ndef f(a: int=1) -> bool:\n    'a text'\n"
        "    if a < 2 and (not a):\n        return min(a, -3)\n    return f'{a}' + 'b'\n"
    )
    expected = """
    if not (a < 2 and (not a)):
    if a < 2 or not a:
    if a <= 2 and (not a):
    if a < 3 and (not a):
    if a < 1 and (not a):
    if a < 2 and a:
    return max(a, -3)
    return min(a, 3)
    return min(a, -4)
    return min(a, -2)
    return f'{a}' - 'b'
    return f'{a}' + ''
    """
    before = ast.unparse(ast.parse(source)).splitlines()
    changed = []
    for mutated in mutations(source):
        lines = mutated.splitlines()
        (line,) = [new for old, new in zip(before, lines, strict=True) if old != new]
        changed.append(line.strip())
    assert sorted(changed) == sorted(line.strip() for line in expected.strip().splitlines())


def test_mutants_terminate_and_fail_the_ground_truth(python: SandboxedPython, problem: Problem) -> None:
    subject = read_subject(problem)
    checker = Checker(python, subject)
    mutants = find_mutants(subject, checker, 3)
    assert 1 <= len(mutants) <= 3
    assert mutants == find_mutants(subject, checker, 3)
    outcomes = checker.check([Case(mutant, subject.truth) for mutant in mutants])
    assert {each.reason for each in outcomes} <= {"wrong", "raised"}


def test_mutant_returning_none_is_used_when_no_other_is_found(python: SandboxedPython) -> None:
    subject = read_subject(make_problem(canonical_solution="    return max([a, b])\n", test="assert larger(2, 2) == 2"))
    (mutant,) = find_mutants(subject, Checker(python, subject), 5)
    assert mutant.endswith("def larger(*_, **__):\n    return None\n")


def test_wrong_reference_has_no_mutants(python: SandboxedPython) -> None:
    subject = read_subject(make_problem(canonical_solution="    return a\n"))
    assert find_mutants(subject, Checker(python, subject), 5) == ()


def test_mutants_are_cached_but_not_failures() -> None:
    known: ResultCache[tuple[str, ...]] = ResultCache()
    lock, calls = threading.Lock(), []

    def find() -> tuple[str, ...]:
        with lock:
            calls.append(1)
        time.sleep(0.05)
        return ("x",)

    def fail() -> tuple[str, ...]:
        raise SandboxError("gone")

    with pytest.raises(SandboxError):
        known.get("a", fail)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: known.get("a", find), range(16))) == {("x",)}
    assert len(calls) == 1
