"""Attempts to look fast by cases: each is wrong, or its untimed work is charged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from rollmill.grading.benchmark_runner import WrongBenchmarkError
from rollmill.grading.case_measurement import CaseMeasurement, answer_cases, first_difference
from rollmill.grading.cases import CaseInputs
from rollmill.grading.clean_copy import CleanCopies, Overlay, difference
from rollmill.grading.flags import measured_flags
from rollmill.grading.prepared import BuiltProblem, prepare
from rollmill.grading.problem import GradedProblem
from rollmill.grading.tree import REGULAR, TreeEntry
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.sandbox import CaseAnswers, Limits
from tests.grading.conftest import Play
from tests.grading.repositories import SLOW, write_command

Measured = Callable[[str], CaseMeasurement]
LIMIT_S = 3.0


class Start(NamedTuple):
    """A built problem, edge cases, and the start commit's answers."""

    prepared: BuiltProblem
    cases: list[str]
    answers: CaseAnswers

    def difference(self, changed: Overlay) -> str | None:
        """Return how the answers of a change differ."""
        return first_difference(
            self.cases, self.answers, answer_cases(self.prepared, changed, self.cases, self.prepared.problem.timeout_s)
        )


def prepared_start(host: BubblewrapHost, problem: GradedProblem, folder: Path) -> Start:
    copies = CleanCopies(host, problem.model_copy(update={"timeout_s": LIMIT_S}), Limits(), 1 << 28)
    prepared = prepare(problem.model_copy(update={"timeout_s": LIMIT_S}), copies, folder)
    (cases,) = CaseInputs(prepared).generate("edge", [7])
    return Start(prepared, cases, answer_cases(prepared, prepared.overlay, cases, LIMIT_S))


@pytest.fixture(scope="module")
def python(host: BubblewrapHost, problems: dict[str, GradedProblem], tmp_path_factory: pytest.TempPathFactory) -> Start:
    return prepared_start(host, problems["py"], tmp_path_factory.mktemp("py"))


@pytest.fixture(scope="module")
def c(host: BubblewrapHost, problems: dict[str, GradedProblem], tmp_path_factory: pytest.TempPathFactory) -> Start:
    return prepared_start(host, problems["c"], tmp_path_factory.mktemp("c"))


def python_change(text: str) -> Overlay:
    return Overlay({b"lib/total.py": TreeEntry(REGULAR, text.encode())}, [])


def c_change(start: Start, text: str) -> Overlay:
    """Return the built tree with that content of the problem's file."""
    problem = start.prepared
    with problem.copies.fresh() as sandbox:
        built = sandbox.execute(f"{write_command('total.c', text)}\nmake -s")
        assert built.returncode == 0, built.output
        return difference(problem.start.digests, problem.copies.read(sandbox, problem.folder))


@pytest.fixture
def measured(python: Start) -> Measured:
    """Return the measurement of other content of the Python problem's file."""
    return lambda text: CaseMeasurement(python.prepared, python_change(text))


SUM = "def total(numbers):\n    return sum(numbers)\n"
LAZY = """\
class Lazy(int):
    numbers = ()
    def __repr__(self):
        return repr(sum(self.numbers))


def total(numbers):
    sum(numbers)
    lazy = Lazy(0)
    lazy.numbers = numbers
    return lazy
"""
WRONG = {
    "reads the callers' frames for a result": (
        "import sys\n\n\ndef total(numbers):\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in frame.f_locals.values():\n            if type(value) is int:\n"
        "                return value\n"
        "        frame = frame.f_back\n    return 0\n"
    ),
    "looks for results among all objects": (
        "import gc\n\n\ndef total(numbers):\n"
        "    return max((len(o) for o in gc.get_objects() if type(o) is list), default=0)\n"
    ),
    "the right type only": "def total(numbers):\n    sum(numbers)\n    return 7\n",
    "cached by identity": (
        "known = {}\n\n\ndef total(numbers):\n    key = id(numbers), len(numbers)\n    if key not in known:\n"
        "        known[key] = numbers, sum(numbers)\n    return known[key][1]\n"
    ),
    "raises on what the benchmark has not": (
        "def total(numbers):\n    if any(type(n) is not int or n < 0 for n in numbers):\n"
        "        raise ValueError(numbers)\n    return sum(numbers)\n"
    ),
    "another text of an error": (
        "def total(numbers):\n    try:\n        return sum(numbers)\n    except TypeError:\n"
        "        raise TypeError('no') from None\n"
    ),
    "another type of error": (
        "def total(numbers):\n    try:\n        return sum(numbers)\n    except TypeError:\n"
        "        raise ValueError('unsupported operand type(s) for +: \\'int\\' and \\'str\\'') from None\n"
    ),
    "swallows errors": (
        "def total(numbers):\n    try:\n        return sum(numbers)\n    except TypeError:\n        return None\n"
    ),
    "a result that computes itself later": LAZY,
    "a subclass that is equal to everything": (
        "class Same(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n\n\n"
        "def total(numbers):\n    return Same(sum(numbers))\n"
    ),
    "pretends another class": (
        "class Result:\n    __class__ = int\n    def __init__(self, value):\n        self.value = value\n"
        "    def __repr__(self):\n        return repr(self.value)\n\n\n"
        "def total(numbers):\n    return Result(sum(numbers))\n"
    ),
    "a generator": "def total(numbers):\n    sum(numbers)\n    return (n for n in numbers)\n",
    "floats": "import math\n\n\ndef total(numbers):\n    sum(numbers)\n    return math.fsum(numbers)\n",
    "rounded floats": (
        "import math\n\n\ndef total(numbers):\n    result = sum(numbers)\n"
        "    return math.fsum(numbers) if type(result) is float else result\n"
    ),
    "a bool for an int": (
        "def total(numbers):\n    result = sum(numbers)\n    return True if result == 1 or not numbers else result\n"
    ),
    "changes its argument": (
        "def total(numbers):\n    result = sum(numbers)\n    numbers.sort(key=str)\n    return result\n"
    ),
    "empties its argument": "def total(numbers):\n    result = sum(numbers)\n    numbers.clear()\n    return result\n",
    "returns its argument": "def total(numbers):\n    sum(numbers)\n    return numbers\n",
    "right in the tests only": (
        "import sys\n\n\ndef total(numbers):\n    return sum(numbers) if 'unittest' in sys.modules else 0\n"
    ),
    "replaces the encoder": "import json\njson.dumps = lambda value: '[]'\n\n\ndef total(numbers):\n    return 7\n",
    "replaces the worker's encoder": (
        "import __main__\n\n\ndef total(numbers):\n    __main__.encode = lambda value: ['int', '7']\n    return 7\n"
    ),
    "replaces standard output": (
        "import io, sys\nsys.stdout = io.StringIO()\n\n\ndef total(numbers):\n    print('[]')\n    return 7\n"
    ),
    "writes the output itself": (
        "import __main__\n\n\ndef total(numbers):\n    __main__.write(b'done\\n[[[\"int\", \"0\"]], []]\\n')\n"
        "    return 0\n"
    ),
    "replies before it is asked": (
        "import __main__\n__main__.write(b'ready\\ndone\\n[]\\n' * 99)\n\n\ndef total(numbers):\n    return 0\n"
    ),
    "writes to every file": (
        "import os\n\n\ndef total(numbers):\n    for file in range(3, 9):\n        try:\n"
        "            os.write(file, b'[]\\n')\n        except OSError:\n            pass\n    return sum(numbers)\n"
    ),
    "ends when it is called": "import os\n\n\ndef total(numbers):\n    os._exit(0)\n",
    "raises what no handler expects": "def total(numbers):\n    raise SystemExit(0)\n",
    "kills its parent": "import os, signal\n\n\ndef total(numbers):\n    os.kill(os.getppid(), signal.SIGKILL)\n",
    "lets a child answer": (
        "import os\n\n\ndef total(numbers):\n    if os.fork():\n        os._exit(0)\n    return sum(numbers)\n"
    ),
    "reads the case before the worker": "import os\nos.read(0, 1 << 20)\n" + SUM,
    "stops itself": "import os, signal\n\n\ndef total(numbers):\n    os.kill(os.getpid(), signal.SIGSTOP)\n",
    "closes its output": "import __main__\n__main__.out.close()\n" + SUM,
    "writes without end": (
        "import __main__\n\n\ndef total(numbers):\n    while True:\n        __main__.write(b'x' * 65536)\n"
    ),
    "recursion without end": "def total(numbers):\n    return total(numbers)\n",
}  # fmt: skip
SLOW_TO_FAIL = ("reads the case before the worker", "stops itself")


@pytest.mark.parametrize("what", [name for name in WRONG if name not in SLOW_TO_FAIL])
def test_wrong_outputs_are_found_by_edge_cases(python: Start, what: str) -> None:
    assert python.difference(python_change(WRONG[what]))


@pytest.mark.slow  # each uses up its time limit
@pytest.mark.parametrize("what", SLOW_TO_FAIL)
def test_a_change_that_hangs_fails_at_its_time_limit(python: Start, what: str) -> None:
    assert "its time of 3.0 s was over" in str(python.difference(python_change(WRONG[what])))


def test_wrong_outputs_of_large_cases_are_found(measured: Measured) -> None:
    large = "def total(numbers):\n    return sum(numbers) if len(numbers) < 100 else sum(numbers[:100])\n"
    measurement = measured(large)
    measurement.check_edges(1)
    with pytest.raises(WrongBenchmarkError, match="the benchmark's outputs are wrong: case "):
        measurement.run_pair(1, True)


def test_edge_cases_among_the_measured_ones_are_compared(measured: Measured) -> None:
    errors = "import sys\n\n\ndef total(numbers):\n    return sum(numbers) if 'x' not in numbers else 0\n"
    with pytest.raises(WrongBenchmarkError, match="the benchmark's outputs are wrong"):
        measured(errors).run_pair(1, False)


# Each is right, and does the work of the start commit where its time is not measured.
WORK = "def work(numbers):\n    time.sleep(0.0002 * len(numbers))\n"
MOVED = {
    "to decoding": (
        "import time\nimport __main__\n"
        f"{WORK}\n\ndef early(line, loads=__main__.loads):\n    case = loads(line)\n    work(case['numbers'])\n"
        "    return case\n\n\n__main__.loads = early\n" + SUM,
        "before the calls",
    ),
    "to encoding": (
        "import time\nimport __main__\n"
        f"{WORK}\n\ndef late(value, dumps=__main__.dumps):\n    work(value[1])\n    return dumps(value)\n\n\n"
        "__main__.dumps = late\n" + SUM,
        "after the calls",
    ),
    "behind an early reply": (
        "import time\nimport __main__\n"
        f"{WORK}\nsend = __main__.write\nskipped = []\n\n\ndef write(text):\n    if text == b'done\\n' and skipped:\n"
        "        skipped.clear()\n        return\n    send(text)\n\n\n__main__.write = write\n\n\n"
        "def total(numbers):\n    if not skipped:\n        send(b'done\\n')\n        skipped.append(1)\n"
        "    work(numbers)\n    return sum(numbers)\n",
        "after the calls",
    ),
    "into a result that is computed when it is encoded": (
        "import time\nimport __main__\n"
        f"{WORK}\n\nclass Lazy:\n    def __init__(self, numbers):\n        sum(numbers)\n"
        "        self.numbers = list(numbers)\n"
        "    def __repr__(self):\n        work(self.numbers)\n        return repr(sum(self.numbers))\n\n\n"
        "def kind(value):\n    return type(sum(value.numbers)) if type(value) is Lazy else type(value)\n\n\n"
        "__main__.type = kind\n\n\ndef total(numbers):\n"
        "    return Lazy(numbers) if len(numbers) > 100 else sum(numbers)\n",
        "after the calls",
    ),
    "to the import": ("import time\ntime.sleep(0.3)\n" + SUM, "starting up"),
}


@pytest.mark.slow
@pytest.mark.parametrize("where", MOVED)
def test_untimed_work_is_charged_and_has_a_flag(measured: Measured, where: str) -> None:
    code, part = MOVED[where]
    measurement = measured(code)
    before_s, after_s = measurement.run_pair(1, False)
    assert after_s + measurement.start_charge_s() > 0.8 * before_s
    flags = measured_flags(measurement.before, measurement.after, measurement.charge)
    assert any(flag.startswith(f"untimed work was charged: {part}") for flag in flags)


CLOCK = """\
import select
import time

time.time = time.monotonic = time.perf_counter = time.process_time = lambda: 0.0
time.sleep = lambda seconds: None


def total(numbers):
    select.select([], [], [], 0.0002 * len(numbers))
    return sum(numbers)
"""
AHEAD = """\
import os
import time

seen = b""


def total(numbers):
    global seen
    os.set_blocking(0, False)
    try:
        seen += os.read(0, 1 << 20)
    except OSError:
        pass
    os.set_blocking(0, True)
    if not seen:
        time.sleep(0.0002 * len(numbers))
    return sum(numbers)
"""
WATCHER = """\
import sys
import threading
import time

known = {}


def watch():
    while True:
        for frame in sys._current_frames().values():
            numbers = frame.f_locals.get("numbers")
            if type(numbers) is list and id(numbers) not in known and len(numbers) > 100:
                time.sleep(0.0002 * len(numbers))
                known[id(numbers)] = numbers
        time.sleep(0.001)


threading.Thread(target=watch, daemon=True).start()


def total(numbers):
    if len(numbers) > 100:
        while id(numbers) not in known:
            time.sleep(0.001)
    return sum(numbers)
"""
DISK = """\
import os
import time


def total(numbers):
    for place in ("/tmp/seen", "lib/seen", "/dev/shm/seen"):
        if os.path.exists(place + str(len(numbers))):
            return sum(numbers)
    time.sleep(0.0002 * len(numbers))
    for place in ("/tmp/seen", "lib/seen", "/dev/shm/seen"):
        if len(numbers) == 700:
            open(place + "700", "w").close()
    return sum(numbers)
"""
NOT_FASTER = {
    "fakes the clock": CLOCK,
    "reads further cases": AHEAD,
    "computes in a thread": WATCHER,
    "keeps results on the disk": DISK,
    "asks for the seed": f"{SLOW}\n\nimport os\n\nslow = total\n{SUM.replace('total', 'fast')}"
    "total = fast if {'BENCH_SEED', 'BENCH_PART'} & set(os.environ) else slow\n",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", NOT_FASTER)
def test_what_knows_cases_no_earlier_is_not_faster(measured: Measured, what: str) -> None:
    measurement = measured(NOT_FASTER[what])
    measurement.run_pair(1, True)
    before_s, after_s = measurement.run_pair(2, False)
    assert after_s > 0.9 * before_s


HEAD = '#include <unistd.h>\n#include <stdio.h>\n#include <signal.h>\n#include <stdarg.h>\n#include "total.h"\n'
LOOP = "    for (int i = 0; i < count; i++) sum += numbers[i];\n"
BODY = "unsigned long total(const unsigned long *numbers, int count) {\n    unsigned long sum = 0;\n"
C_SUM = f"{BODY}{LOOP}    return sum;\n}}\n"
C_WRONG = {
    "cached by address": HEAD
    + "static const unsigned long *last;\nstatic int size;\nstatic unsigned long kept;\n"
    + f"{BODY}    if (numbers == last && count == size) return kept;\n{LOOP}"
    + "    last = numbers, size = count;\n    return kept = sum;\n}\n",
    "a part of the numbers": HEAD + C_SUM.replace("i < count", "i < count && i < 5"),
    "changes its argument": HEAD
    + C_SUM.replace("return sum", "if (count) ((unsigned long *)numbers)[0] = 0; return sum"),
    "ends before main": HEAD + C_SUM + "__attribute__((constructor)) static void end(void) { _exit(0); }\n",
    "answers before main": HEAD
    + C_SUM
    + '__attribute__((constructor)) static void say(void) { printf("ready\\ndone\\n0 0 0\\n"); fflush(stdout); }\n',
    "another snprintf": HEAD
    + C_SUM
    + "int snprintf(char *text, size_t size, const char *form, ...) {\n"
    + '    const char *zero = "0 0 0\\n";\n    for (int i = 0; i < 7; i++) text[i] = zero[i];\n    return 6;\n}\n',
    "another fork": HEAD + C_SUM.replace("return sum", "if (fork()) _exit(0); return sum"),
    "kills itself": HEAD + C_SUM.replace("return sum", "kill(getpid(), SIGKILL); return sum"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", C_WRONG)
def test_wrong_outputs_of_c_are_found(c: Start, what: str) -> None:
    assert c.difference(c_change(c, C_WRONG[what]))


@pytest.mark.slow
def test_c_that_works_while_it_decodes_is_charged(c: Start) -> None:
    decoder = (
        "unsigned long strtoul(const char *text, char **end, int base) {\n    unsigned long value = 0;\n"
        "    while (*text == ' ') text++;\n    const char *first = text;\n"
        "    for (; *text >= '0' && *text <= '9'; text++) value = value * 10 + (*text - '0');\n"
        "    if (text > first) usleep(200);\n    *end = (char *)text;\n    return value;\n}\n"
    )
    measurement = CaseMeasurement(c.prepared, c_change(c, HEAD + C_SUM + decoder))
    before_s, after_s = measurement.run_pair(1, False)
    assert after_s > 0.8 * before_s


TESTS_FORGED = "import unittest\nunittest.TestCase.run = lambda self, result=None: result.startTest(self)\n"
GRADED = {
    "frames": (WRONG["reads the callers' frames for a result"], "test", "looks at the callers' frames"),
    "a test runner that runs nothing": (TESTS_FORGED + WRONG["the right type only"], "test", "uses the test runner"),
    "a stale cache": (WRONG["cached by identity"], "test", "keeps results by an object's identity"),
    "the right type": (TESTS_FORGED + "def total(numbers):\n    return 1\n", "test", "uses the test runner"),
    "raises": (WRONG["raises on what the benchmark has not"], "test", None),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", GRADED)
def test_what_earned_rewards_by_one_process_earns_none(play: Play, what: str) -> None:
    code, phase, flag = GRADED[what]
    evaluation = play("py", write_command("lib/total.py", code))
    assert (evaluation.success, evaluation.reward, evaluation.phase) == (False, 0.0, phase)
    assert [each.partition(":")[0] for each in evaluation.flags][:1] == ([flag] if flag else [])
