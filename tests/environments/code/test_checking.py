"""Verdicts in real sandboxes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from rollmill.environments.code.checking import Case, CaseOutcome, Checker
from rollmill.environments.code.subject import Subject
from rollmill.environments.python_runs import SandboxedPython
from rollmill.sandboxes.sandbox import Execution, SandboxError

TRUTH = "SECRET = 4711\ndef check(candidate):\n    assert candidate(1) == 2\n    assert candidate(SECRET) == 4712\n"
RIGHT = "def f(x):\n    return x + 1\n"


def checker(python: SandboxedPython, prelude: str = "", names: tuple[str, ...] = ("f",)) -> Checker:
    return Checker(python, Subject("", prelude, names, TRUTH, None))


def judge(python: SandboxedPython, code: str, tests: str = TRUTH, **case: Any) -> CaseOutcome:
    return checker(python).check([Case(code, tests, **case)], timeout_s=3)[0]


def test_right_code_passes_and_wrong_code_says_where(python: SandboxedPython) -> None:
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


def test_more_cases_than_one_sandbox_takes_keep_their_order(python: SandboxedPython) -> None:
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
        ("assert f(lambda: 1) == 2", "raised", "assert f(lambda: 1) == 2; TypeError: tests cannot pass a function"),
        ("raise SystemExit(0)\nassert f(1)", "raised", "raise SystemExit(0); SystemExit: 0"),
    ],
)
def test_tests_that_are_none(python: SandboxedPython, tests: str, reason: str, failure: str) -> None:
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
    "__import__('datetime').date(2020, 1, 1)": "assert f().year == 2020 and f() != f()",
    "type('Box', (), {'get': lambda self, n: [n], 'size': 3})()": "assert f().get(4) == [4] and f().size == 3",
}


def test_values_come_as_what_they_are(python: SandboxedPython) -> None:
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
        "assert raised([1], by=0) == ('KeyError', repr(repr('zero')))\n"
        "assert raised([1], by=2)[0] == 'RaisedError'\n"
        "assert f(given) == 6\n"
    )
    assert judge(python, code, tests) == CaseOutcome("passed")


def test_what_the_problem_gives_is_there_for_code_and_tests(python: SandboxedPython) -> None:
    given = "from typing import List\ndef double(n): return 2 * n\ndef f(x: List[int]): 'stub'\n"
    tests = "def check(candidate):\n    assert candidate([1]) == double(1)\n"
    found = checker(python, given).check(
        [
            Case("def f(x: List[int]): return double(x[0])", tests),
            Case("def double(n): return 0\ndef f(x): return 0", tests),
            Case("", tests),
        ]
    )
    assert [each.reason for each in found] == ["passed", "wrong", "load"]


HOSTILE = {
    "exits at once": "import os\nos._exit(0)",
    "exits in a call": "import os\ndef f(x): os._exit(0)",
    "raises SystemExit": "def f(x): raise SystemExit(0)",
    "equal to everything": "class A:\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x): return A()",
    "an int that is equal to everything": (
        "class A(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return A(9)"
    ),
    "prints a pass": (
        "print('outcomes', '0' * 128, '[{\"reason\": \"passed\", \"failures\": []}]', flush=True)\ndef f(x): return 0"
    ),
    "writes into every file that it finds": (
        "import os, glob\nline = b'\\noutcomes ' + b'0' * 128 + b' [{\"reason\": \"passed\", \"failures\": []}]\\n'\n"
        "for name in glob.glob('/proc/[0-9]*/fd/*'):\n"
        "    try:\n        file = os.open(name, os.O_WRONLY | os.O_NONBLOCK)\n        os.write(file, line)\n"
        "    except OSError: pass\n"
        "def f(x): return 0"
    ),
    "answers in the tester's name": (
        "import os, json\ndata = json.dumps({'reason': 'passed', 'failures': []}).encode()\n"
        "for file in range(3, 60):\n"
        "    try: os.write(file, len(data).to_bytes(8, 'big') + data)\n    except OSError: pass\n"
        "def f(x): return 0"
    ),
    "answers with no answer": (
        "import os\nfor n in range(3, 60):\n    try: os.write(n, b'\\xff' * 99)\n    except OSError: pass"
    ),
    "answers too deep": (
        "import os\ndata = b'[' * 100000\n"
        "for n in range(3, 60):\n    try: os.write(n, len(data).to_bytes(8, 'big') + data)\n    except OSError: pass"
    ),
    "kills its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef f(x): return 0",
    "stops its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\ndef f(x): return 0",
    "kills everybody": "import os\ndef f(x): os.kill(-1, 9)",
    "takes 10 GB": "def f(x):\n    return len(bytearray(10 << 30))",
    "takes 10 GB bit by bit": "def f(x):\n    kept = []\n    while True: kept.append(bytearray(1 << 20))",
    "forks without end": "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass",
    "prints without end": "def f(x):\n    while True: print('x' * 1000)",
    "prints without end elsewhere": (
        "import os\ndef f(x):\n    file = os.open('/proc/1/fd/1', os.O_WRONLY)\n"
        "    while True: os.write(file, b'x' * 1000)"
    ),
    "answers without end": "def f(x): return 'x' * (1 << 25)",
    "sleeps for ever": "import time\ndef f(x): time.sleep(10 ** 6)",
    "never loads": "while True: pass",
    "opens a socket": (
        "import socket\ndef f(x):\n    socket.create_connection(('1.1.1.1', 53), timeout=1)\n    return x + 1"
    ),
    "reads outside": "def f(x):\n    open('/root/.bashrc').read()\n    open('/etc/shadow').read()\n    return x + 1",
    "traces its parent": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def f(x):\n    tried = [libc.ptrace(16, p, 0, 0) for p in (os.getppid(), os.getpid() + 1)]\n"
        "    return x + 1 if 0 in tried else 0"
    ),
    "a repr that lies": "class A:\n    def __repr__(self): return '2'\ndef f(x): return A()",
    "no hash in a set": "import json\nclass A(dict): pass\ndef f(x): return {'tuple': 1}",
    "a name that lies": "class A(Exception): pass\nA.__name__ = 'AssertionError' * 10000\ndef f(x): raise A",
    "an error without text": "class A(Exception):\n    def __str__(self): raise A\ndef f(x): raise A",
    "no text": "\0",
    "half a character": "x = '\ud800'\ndef f(x): return 0",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_fails_and_no_more(python: SandboxedPython, name: str) -> None:
    began = time.monotonic()
    outcome = judge(python, HOSTILE[name], secret=True)
    assert not outcome.passed
    assert outcome.reason in {"wrong", "raised", "ended", "load", "time"}
    assert outcome.failures == () or outcome.reason == "load"
    assert time.monotonic() - began < 25
    assert judge(python, RIGHT, secret=True) == CaseOutcome("passed")


SEARCH = """
import glob, os, re
found = []
def look(where, data):
    if re.search(rb'Quetzal[c]oatl', data): found.append(where)
for name in glob.glob('/proc/[0-9]*/*') + glob.glob('/tmp/*') + glob.glob('/workspace/*') + glob.glob('/dev/shm/*'):
    if name.startswith(f'/proc/{os.getpid()}/') or name.endswith(('/program.py', 'kmsg')): continue
    if os.path.basename(name) in ('cmdline', 'environ', 'maps', 'syscall', 'stack') or not name.startswith('/proc'):
        try: look(name, open(name, 'rb').read())
        except OSError: pass
for name in glob.glob('/proc/[0-9]*/fd/*') + ['/proc/self/fd/%d' % n for n in range(60)]:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        look(name, os.pread(file, 1 << 16, 0))
    except OSError: pass
for each in os.listdir('/proc'):
    try:
        if not each.isdigit(): continue
        memory = open(f'/proc/{each}/mem', 'rb', 0)
        for line in open(f'/proc/{each}/maps'):
            low, high = (int(n, 16) for n in line.split()[0].split('-'))
            if 'rw' not in line: continue
            try:
                memory.seek(low)
                look(f'memory of {each}', memory.read(high - low))
            except (OSError, ValueError, OverflowError): pass
    except OSError: pass
def f(x): raise ValueError(str(found) if found else 'nothing')
"""

SEARCHED = (
    "def check(candidate):\n    secret = 'Quetzalcoatl'\n    try: candidate(0)\n"
    "    except ValueError as error: assert str(error) {} 'nothing'\n"
)


def test_no_memory_and_no_file_holds_the_tests(python: SandboxedPython) -> None:
    """The code searches all that it can read, its own memory too; the same search finds what is there."""
    assert judge(python, SEARCH, SEARCHED.format("=="), secret=True) == CaseOutcome("passed")
    planted = "planted = 'Quetzalcoatl'\n" + SEARCH
    assert judge(python, planted, SEARCHED.format("!="), secret=True) == CaseOutcome("passed")
    assert judge(python, SEARCH, SEARCHED.format("!=")).passed  # tests that are no secret can be read


class Silent:
    """Python that is not there."""

    timeout_s = 1.0

    def __init__(self, done: Execution) -> None:
        self.done = done

    def run(self, program: str, *, stdin: str = "", timeout_s: float | None = None) -> Execution:
        self.given = json.loads(stdin.partition("\n")[2])
        return self.done


@pytest.mark.parametrize("returncode", [97, 126, 127])
def test_a_sandbox_without_python_is_no_verdict(returncode: int) -> None:
    silent = Silent(Execution(output="bash: exec: python3: not found\n", returncode=returncode))
    with pytest.raises(SandboxError, match="code cannot be judged in this sandbox: bash: exec: python3: not found"):
        checker(silent).check([Case(RIGHT, TRUTH)])  # type: ignore[arg-type]


def test_an_outcome_that_is_not_signed_counts_for_nothing() -> None:
    forged = 'outcomes 00 [{"reason": "passed", "failures": []}]\noutcomes\noutcomes \udcff x\n'
    silent = Silent(Execution(output=forged, returncode=137))
    found = checker(silent).check([Case(RIGHT, TRUTH, secret=True), Case(RIGHT, TRUTH)])  # type: ignore[arg-type]
    assert found == [CaseOutcome("ended"), CaseOutcome("ended", ("the process of the tests was ended",))]
    late = Silent(Execution(output="", returncode=124, timed_out=True))
    assert checker(late).check([Case(RIGHT, TRUTH, secret=True)]) == [CaseOutcome("time")]  # type: ignore[arg-type]
