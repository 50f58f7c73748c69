"""Verdicts equal those of plain Python, except for programs that forge equality."""

from __future__ import annotations

import pytest

from rollmill.environments.code.checking import Case, CaseOutcome, Checker
from rollmill.environments.code.subject import read_subject
from rollmill.environments.python_runs import SandboxedPython
from rollmill.records import Problem
from tests.environments.code.programs import CHEATS, PLAIN


def check(python: SandboxedPython, code: str, tests: str) -> CaseOutcome:
    names = {"test": tests, "code": code}
    entry = next(name for name in ("f", "V", "Account") if f"def {name}(" in code or f"class {name}:" in code)
    subject = read_subject(Problem(instance_id="one", prompt="Write it.", fields={**names, "entry_point": entry}))
    return Checker(python, subject).check([Case(code, tests)])[0]


@pytest.mark.parametrize("name", PLAIN)
def test_programs_pass_as_in_plain_python(python: SandboxedPython, name: str) -> None:
    code, tests = PLAIN[name]
    assert check(python, code, tests) == CaseOutcome("passed")


@pytest.mark.parametrize("name", PLAIN)
def test_the_same_tests_pass_in_one_file(python: SandboxedPython, name: str) -> None:
    code, tests = PLAIN[name]
    future = "from __future__ import annotations\n"
    program = (future if future in tests else "") + code.replace("if __name__", "if not __name__")
    done = python.run(f"{program}\n{tests.replace(future, '')}".replace("b'solution'", "b'__main__'"))
    assert (done.returncode, done.output[-500:] if done.returncode else "") == (0, "")


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_do_not_pass(python: SandboxedPython, name: str) -> None:
    code, tests = CHEATS[name]
    for number in range(8 if "TRY" in tests else 1):
        outcome = check(python, code, f"TRY = {number}\n{tests}")
        assert not outcome.passed, number
