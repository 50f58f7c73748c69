"""Verdicts in real sandboxes."""

from __future__ import annotations

import json

import pytest

from rollmill.environments.code.checking import Case, CaseOutcome
from rollmill.environments.python_runs import SandboxedPython
from rollmill.sandboxes.sandbox import Execution, SandboxError
from tests.environments.code.submissions import HOSTILE, RIGHT, SEARCH, SEARCHED, TRUTH, checker, judge


def test_right_code_passes_and_wrong_code_names_the_failure(python: SandboxedPython) -> None:
    tests = "assert f(1) == 2\ndef test_more():\n    for n in [2, 3]:\n        assert f(n) == n + 1, 'more'\nf('x')\n"
    cases = [
        Case("def f(x): return x + 1", "assert f(1) == 2"),
        Case("def f(x): return 2", tests),
        Case("def f(x): return x +", tests),
        Case("def g(x): return x", tests),
        Case("1 / 0", tests),
        Case("def f(x): return 2", TRUTH, secret=True),
        Case("1 / 0", TRUTH, secret=True),
    ]
    assert checker(python).check(cases) == [
        CaseOutcome("passed"),
        CaseOutcome("wrong", ("assert f(n) == n + 1, 'more'; AssertionError: more; f(2) is 2",)),
        CaseOutcome("load", ("the code does not run: SyntaxError: invalid syntax (<code>, line 1)",)),
        CaseOutcome("load", ("the code defines no f",)),
        CaseOutcome("load", ("the code does not run: ZeroDivisionError: division by zero",)),
        CaseOutcome("wrong"),
        CaseOutcome("load", ("the code does not run: ZeroDivisionError: division by zero",)),
    ]


def test_cases_of_several_sandboxes_keep_their_order(python: SandboxedPython) -> None:
    cases = [Case(f"def f(x): return {n}", "assert f(0) % 2 == 0") for n in range(10)]
    assert [each.passed for each in checker(python).check(cases)] == [True, False] * 5


@pytest.mark.parametrize(
    ("tests", "reason", "failure"),
    [
        ("assert f(1) ==", "malformed", "the tests do not parse: SyntaxError: invalid syntax"),
        ("-" * 15_000 + "1", "malformed", "the tests do not parse: "),
        ("f(1)", "malformed", "the tests have no assert"),
        ("assert 1 == 1", "unused", "the tests never call the code"),
        ("import nothing_here\nassert f(1) == 2", "raised", "import nothing_here; ModuleNotFoundError: "),
        ("import os\nassert f(1) == 2\nos._exit(0)", "ended", "the process of the tests was ended"),
        ("import os\nassert f(1) == 2\nos.kill(os.getppid(), 9)", "ended", "the process of the tests was ended"),
        ("assert f(1) == 2\nwhile True: pass", "time", "no end within 3 s"),
        ("import os\nassert f(os) == 2", "raised", "assert f(os) == 2; TypeError: tests cannot pass a module"),
        ("raise SystemExit(0)\nassert f(1)", "raised", "raise SystemExit(0); SystemExit: 0"),
    ],
)
def test_unusable_tests_are_rejected_with_a_reason(
    python: SandboxedPython, tests: str, reason: str, failure: str
) -> None:
    outcome = judge(python, RIGHT, tests)
    assert outcome.reason == reason
    assert outcome.failures[0].startswith(failure)


SAME = {
    "None": "assert f() is None",
    "True": "assert f() is True and f() == 1",
    "1": "assert f() == 1 and type(f()) is int",
    "1.0": "assert type(f()) is float",
    "-0.0": "assert str(f()) == '-0.0'",
    "10 ** 5000": "assert f() == 10 ** 5000",
    "float('nan')": "assert f() != f()",
    "float('-inf')": "assert f() == float('-inf')",
    "1 + 2j": "assert f() == 1 + 2j",
    "'\\ud800\\n\\0ä'": "assert f() == '\\ud800\\n\\0ä'",
    "b'\\xff'": "assert f() == b'\\xff' and type(f()) is bytes",
    "bytearray(b'x')": "assert type(f()) is bytearray",
    "[1, (2, [3])]": "assert f() == [1, (2, [3])] and f() != [1, [2, [3]]]",
    "(1, 2)": "assert f() == (1, 2) and f() != [1, 2]",
    "{1, 2}": "assert f() == {2, 1} and f() != [1, 2] and type(f()) is set",
    "frozenset([(1, 2)])": "assert f() == frozenset([(1, 2)])",
    "{(1, 'a'): {2: {3}}}": "assert f() == {(1, 'a'): {2: {3}}}",
    "{'b': 1, 'a': 2}": "assert list(f()) == ['b', 'a']",
    "range(3)": "assert f() == range(3)",
    "(n * n for n in range(3))": "assert f() != [0, 1, 4]\nassert list(f()) == [0, 1, 4]\nassert next(f()) == 0",
    "iter(int, 1)": "from itertools import islice\nassert list(islice(f(), 3)) == [0, 0, 0]",
    "(lambda x: x * 2)": "assert f()(21) == 42",
    "__import__('collections').Counter('aab')": "assert f() == {'a': 2, 'b': 1}",
    "__import__('fractions').Fraction(1, 2)": "assert f() == 0.5 and f().numerator == 1",
    "__import__('decimal').Decimal('0.50')": "assert f() == 0.5 and str(f()) == '0.50'",
    "type('Decimal', (), {'__module__': 'decimal', '__str__': lambda self: '7'})()": "assert f() == 7",
    "__import__('datetime').date(2020, 1, 1)": "assert f().year == 2020 and f() == f()",
    "type('Box', (), {'get': lambda self, n: [n], 'size': 3})()": "assert f().get(4) == [4] and f().size == 3",
}


def test_values_keep_their_types(python: SandboxedPython) -> None:
    cases = [Case(f"def f(): return {value}", tests) for value, tests in SAME.items()]
    outcomes = checker(python).check(cases)
    assert {value: each for value, each in zip(SAME, outcomes, strict=True) if not each.passed} == {}


def test_state_arguments_and_exceptions_are_as_in_one_process(python: SandboxedPython) -> None:
    code = (
        "calls = []\n"
        "class Odd(KeyError): pass\n"
        "def f(items, *, by=1):\n"
        "    calls.append(by)\n"
        "    if not items: raise ValueError('empty')\n"
        "    if by == 0: raise Odd('zero')\n"
        "    if by == 2: raise SystemExit\n"
        "    items.sort()\n"
        "    return len(calls)\n"
    )
    tests = (
        "given = [3, 1, 2]\n"
        "assert f(given) == 1 and given == [1, 2, 3]\n"
        "assert f(given, by=5) == 2\n"
        "def raised(*args, **kwargs):\n"
        "    try: f(*args, **kwargs)\n"
        "    except Exception as error: return type(error).__name__, str(error)\n"
        "assert raised([]) == ('ValueError', 'empty')\n"
        "assert raised([1], by=0) == ('Odd', repr('zero'))\n"
        "assert raised([1], by=2)[0] == 'RaisedError'\n"
        "assert f(given) == 6\n"
    )
    assert judge(python, code, tests) == CaseOutcome("passed")


def test_prelude_is_available_to_code_and_tests(python: SandboxedPython) -> None:
    prelude = "from typing import List\ndef double(n): return 2 * n\ndef f(x: List[int]): 'stub'\n"
    tests = "def check(candidate):\n    assert candidate([1]) == double(1)\n"
    outcomes = checker(python, prelude).check(
        [
            Case("def f(x: List[int]): return double(x[0])", tests),
            Case("def double(n): return 0\ndef f(x): return 0", tests),
            Case("", tests),
        ]
    )
    assert [each.reason for each in outcomes] == ["passed", "wrong", "load"]


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_fails_and_later_code_still_passes(python: SandboxedPython, name: str) -> None:
    outcome = judge(python, HOSTILE[name], secret=True)
    assert not outcome.passed
    assert outcome.reason in {"wrong", "raised", "ended", "load", "time"}
    assert outcome.failures == () or outcome.reason == "load"
    assert judge(python, RIGHT, secret=True) == CaseOutcome("passed")


def test_no_memory_and_no_file_holds_the_tests(python: SandboxedPython) -> None:
    """The code searches all that it can read, including its own memory; the search finds a planted text."""
    assert judge(python, SEARCH, SEARCHED.format("=="), secret=True) == CaseOutcome("passed")
    planted = "planted = 'Quetzalcoatl'\n" + SEARCH
    assert judge(python, planted, SEARCHED.format("!="), secret=True) == CaseOutcome("passed")
    assert judge(python, SEARCH, SEARCHED.format("!=")).passed  # tests that are no secret can be read


class Silent:
    """A sandbox without Python."""

    timeout_s = 1.0

    def __init__(self, done: Execution) -> None:
        self.done = done

    def run(self, program: str, *, stdin: str = "", timeout_s: float | None = None) -> Execution:
        self.batch = json.loads(stdin.partition("\n")[2])
        return self.done


@pytest.mark.parametrize("returncode", [97, 126, 127])
def test_sandbox_without_python_is_an_error(returncode: int) -> None:
    silent = Silent(Execution(output="bash: exec: python3: not found\n", returncode=returncode))
    with pytest.raises(SandboxError, match="code cannot be judged in this sandbox: bash: exec: python3: not found"):
        checker(silent).check([Case(RIGHT, TRUTH)])  # type: ignore[arg-type]


def test_unsigned_outcome_is_ignored() -> None:
    forged = 'outcomes 00 [{"reason": "passed", "failures": []}]\noutcomes\noutcomes \udcff x\n'
    silent = Silent(Execution(output=forged, returncode=137))
    outcomes = checker(silent).check([Case(RIGHT, TRUTH, secret=True), Case(RIGHT, TRUTH)])  # type: ignore[arg-type]
    assert outcomes == [CaseOutcome("ended"), CaseOutcome("ended", ("the process of the tests was ended",))]
    late = Silent(Execution(output="", returncode=124, timed_out=True))
    assert checker(late).check([Case(RIGHT, TRUTH, secret=True)]) == [CaseOutcome("time")]  # type: ignore[arg-type]
