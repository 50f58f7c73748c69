"""The verifier `code` in real sandboxes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rollmill.environments.code.input_output_tests import is_same_output, read_input_output_tests
from rollmill.environments.code.verifier import CodeVerifier
from rollmill.environments.python_runs import SandboxedPython
from rollmill.records import Problem, Verdict
from rollmill.verifiers.failure import VerifierFailed
from tests.environments.code.conftest import make_problem

MBPP = {"test_list": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"], "code": "def add(a, b):\n    return a + b\n"}
SUMS = {"input_output": json.dumps({"inputs": ["2\n3\n", "10\n-4\n"], "outputs": ["5\n", "6\n"]})}
RIGHT_SUM = "print(int(input()) + int(input()))"


def judge(python: SandboxedPython, completion: str, problem: Problem) -> Verdict:
    return asyncio.run(CodeVerifier(python=python).verify(problem, completion))


def problem_of(**fields: Any) -> Problem:
    return Problem(instance_id="p", prompt="Write it.", fields=fields)


RIGHT = "def larger(a, b):\n    return max(a, b)\n"


@pytest.mark.parametrize(
    "completion",
    [
        f"Here it is:\n```python\n{RIGHT}```\nDone.",
        f"```py\n{RIGHT}```",
        f"```\n{RIGHT}```",
        RIGHT,
        "```python\ndef larger(a, b): return 0\n```\nNo:\n```python\n" + RIGHT + "```",
        f"```python\n{RIGHT}```\nUse it:\n```python\nprint(larger(1, 2))\n```\n```bash\npython it.py\n```",
        "    return max(a, b)\n",
        "```python\n    return max(a, b)\n```",
        "return max(a, b)",
        f"```python\n{RIGHT}",
    ],
)
def test_program_is_extracted_from_a_completion(python: SandboxedPython, completion: str) -> None:
    verdict = judge(python, completion, make_problem())
    assert (verdict.success, verdict.reward, verdict.status) == (True, 1.0, "ok"), verdict


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("```python\ndef larger(a, b): return a\n```", "ok"),
        ("```python\ndef smaller(a, b): return a\n```", "ok"),
        ("```python\ndef larger(a, b) return a\n```", "ok"),
        ("I cannot do that, sorry.", "unparseable"),
        ("", "unparseable"),
        ("```python\ndef larger(a, b):\n    return a\n" + "x = 1\n" * 100_000 + "```", "unparseable"),
        ("return " + "-" * 900 + "1", "ok"),
    ],
)
def test_wrong_programs_are_rejected(python: SandboxedPython, completion: str, status: str) -> None:
    verdict = judge(python, completion, make_problem())
    assert (verdict.success, verdict.reward, verdict.status) == (False, 0.0, status), verdict


def test_mbpp_and_functions_of_apps_are_judged(python: SandboxedPython) -> None:
    assert judge(python, "```python\ndef add(x, y): return x + y\n```", problem_of(**MBPP)).success
    assert not judge(python, "```python\ndef add(x, y): return 3\n```", problem_of(**MBPP)).success
    calls = {"inputs": [[1, 2], [3, 4]], "outputs": [[3], [7]], "fn_name": "add"}
    assert judge(python, "```python\ndef add(x, y): return x + y\n```", problem_of(input_output=calls)).success
    assert not judge(python, "```python\ndef add(x, y): return 3\n```", problem_of(input_output=calls)).success


SOLUTION = "class Solution:\n    def total(self, numbers: List[int], bonus): return sum(numbers) + bonus\n"
CALLS = {"inputs": [[[1, 2], 3], [[], 1]], "outputs": [6, 1], "fn_name": "total"}
FUNCTIONAL = {
    "public_test_cases": '[{"input": "[1, 2]\\n3", "output": "6", "testtype": "functional"}]',
    "metadata": '{"func_name": "total"}',
}


@pytest.mark.parametrize(
    "fields", [{"input_output": CALLS}, {"input_output": CALLS, "solutions": [SOLUTION]}, FUNCTIONAL]
)
def test_methods_of_class_solution_are_called(python: SandboxedPython, fields: dict[str, Any]) -> None:
    assert judge(python, f"```python\n{SOLUTION}```", problem_of(**fields)).success
    wrong = judge(python, f"```python\n{SOLUTION.replace('+ bonus', '')}```", problem_of(**fields))
    assert (wrong.success, wrong.reason) == (False, "wrong")


def test_assertions_that_call_a_function_find_no_method(python: SandboxedPython) -> None:
    tests = {"test": "assert total([1], 2) == 3\n", "entry_point": "total"}
    assert not judge(python, f"```python\n{SOLUTION}```", problem_of(**tests)).success


def test_a_function_that_the_tests_do_not_name_is_a_fault() -> None:
    fields = FUNCTIONAL | {"metadata": "{}"}
    assert "func_name" in str(CodeVerifier().problem_fault(problem_of(**fields)))


def test_programs_are_judged_by_their_output(python: SandboxedPython) -> None:
    assert judge(python, f"```python\n{RIGHT_SUM}\n```", problem_of(**SUMS)).success
    main = f"import sys\nif __name__ == '__main__':\n    {RIGHT_SUM}\n    sys.exit(0)"
    assert judge(python, main, problem_of(**SUMS)).success
    wrong = judge(python, "```python\nprint(5)\n```", problem_of(**SUMS))
    assert (wrong.success, wrong.reason) == (False, "test 2 of 2: wrong")


CHEATS = [
    "import os\nos._exit(0)",
    "import sys\nsys.exit(0)",
    "raise SystemExit(0)",
    "print('passed')\nprint('outcomes', '0' * 64, '[{\"reason\": \"passed\"}]')",
    "import builtins\nbuiltins.AssertionError = type('E', (Exception,), {})\nbuiltins.int = lambda *a: 5",
    "import builtins\nbuiltins.max = lambda *a: 5\nbuiltins.len = lambda *a: 0",
    "class A:\n    def __eq__(self, o): return True\ndef larger(*a): return A()\nadd = larger\nprint(A())",
    "import sys\nsys.modules['json'] = None\nsys.settrace(lambda *a: None)",
    "import atexit, os\natexit.register(lambda: os._exit(0))",
    "open('/tmp/solution.py', 'w').write('print(5)')\nimport glob\nfor n in glob.glob('/proc/*/fd/1'):\n"
    '    try: open(n, \'w\').write(\'0 [["", "5"], ["", "6"]]\\n\')\n    except OSError: pass',
]


@pytest.mark.parametrize("code", CHEATS)
def test_no_program_forges_its_verdict(python: SandboxedPython, code: str) -> None:
    stub = "\ndef larger(*a): return 0\n" if "larger" not in code else ""
    for problem in (make_problem(), problem_of(**SUMS)):
        assert not judge(python, f"```python\n{code}{stub}\n```", problem).success
        assert not judge(python, f"```python\n{stub}{code}\n```", problem).success


@pytest.mark.parametrize(
    "problem",
    [
        make_problem(canonical_solution="    return a\n"),
        problem_of(**{**MBPP, "code": "def add(a, b):\n    return a\n"}),
        problem_of(**SUMS, solutions=json.dumps(["print(5)"])),
    ],
)
def test_a_problem_whose_own_reference_fails_is_refused(python: SandboxedPython, problem: Problem) -> None:
    with pytest.raises(VerifierFailed, match="own reference solution fails its tests") as caught:
        judge(python, f"```python\n{RIGHT}\n```", problem)
    assert caught.value.type == "problem_refused"


def test_a_sound_reference_is_run_once(python: SandboxedPython) -> None:
    sound = problem_of(**SUMS, solutions=[RIGHT_SUM])
    assert judge(python, RIGHT_SUM, sound).success
    assert not judge(python, "print(1)", sound).success


def test_pairs_are_read_in_the_forms_of_public_data_sets() -> None:
    expected = (("1", "2"), ("3", "4"))
    forms = [
        {"input_output": {"inputs": ["1", "3"], "outputs": ["2", "4"]}},
        {"public_test_cases": '[{"input": "1", "output": "2", "testtype": "stdin"}, {"input": "3", "output": "4"}]'},
        {"test_cases": [{"input": "1", "output": "2"}, {"input": "3", "output": "4"}]},
        {"public_tests": 1, "private_test_cases": {"input": ["1", "3"], "output": ["2", "4"]}},
    ]
    for fields in forms:
        tests = read_input_output_tests(problem_of(**fields))
        assert tests is not None
        assert tuple(map(tuple, tests.tests)) == expected
    assert read_input_output_tests(problem_of(test="assert f(1)")) is None


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"x": 1}, "fields.test and fields.test_list are missing"),
        ({"input_output": {"inputs": ["1"], "outputs": []}}, "input_output has 1 inputs and 0 outputs"),
        ({"tests": [{"input": "1"}]}, "tests has an input without an output"),
    ],
)
def test_problem_without_usable_tests_has_a_reason(fields: dict[str, Any], fault: str) -> None:
    assert (CodeVerifier().problem_fault(problem_of(**fields)) or "").startswith(fault)


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("5\n", "5", True),
        ("1 2 \n3", "1 2\n3\n", True),
        ("0.3333333", "0.33333333", True),
        ("0.34", "0.33", False),
        ("5.0", "5", False),
        ("5", "5.0", True),
        ("", "5", False),
        ("5 5", "5", False),
        ("Yes", "YES", False),
    ],
)
def test_outputs_are_compared_word_by_word(output: str, expected: str, same: bool) -> None:
    assert is_same_output(output, expected) is same
