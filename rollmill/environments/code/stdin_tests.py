"""Tests of whole programs by standard input and expected standard output."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from rollmill.environments.tools import PythonRunner
from rollmill.records import Problem
from rollmill.sandboxes.sandbox import SandboxError

_COLUMNS = ("input_output", "test_cases", "public_test_cases", "private_test_cases", "generated_tests", "tests", "test")
_START_S = 5.0
_AT_ONCE = 8
"""Inputs per sandbox."""
_MOST_OUTPUT = 1 << 20
"""Most bytes of all outputs of one sandbox; a program that writes more than its share fails."""
_SET_UP_FAILED = 97
_OF_FUNCTIONS = "functional"
_TOLERANCE = 1e-6
_RUNNER = """import json, os, subprocess, sys, tempfile
given = json.loads(sys.stdin.readline())
with open("/tmp/solution.py", "w", encoding="utf-8", errors="replace") as file:
    file.write(given["code"])
outcomes = []
for text in given["inputs"]:
    with tempfile.TemporaryFile() as into, tempfile.TemporaryFile() as out:
        into.write(text.encode("utf-8", "surrogatepass"))
        into.seek(0)
        command = [sys.executable, "-s", "-B", "/tmp/solution.py"]
        process = subprocess.Popen(command, stdin=into, stdout=out, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            reason = "" if process.wait(given["seconds"]) == 0 else "raised"
        except subprocess.TimeoutExpired:
            reason = "time"
        try:
            os.killpg(process.pid, 9)
        except OSError:
            pass
        process.wait()
        size = out.seek(0, 2)
        out.seek(0)
        if size > given["most"]:
            reason = reason or "output"
        outcomes.append([reason, out.read(given["most"]).decode("utf-8", "replace")])
print("\\n" + given["mark"], json.dumps(outcomes), flush=True)
"""


class ProgramTest(NamedTuple):
    """One test: standard input and expected standard output."""

    stdin: str
    stdout: str


class StdinTests(NamedTuple):
    """Tests of a program, or of the function that `function` names."""

    tests: tuple[ProgramTest, ...]
    function: str | None = None
    calls: tuple[tuple[list[Any], Any], ...] = ()
    """Arguments and expected result of each test of a function."""

    def as_assertions(self) -> str:
        """Return the tests of a function as a `check(candidate)`."""
        lines = [f"    assert candidate(*{args!r}) == {result!r}" for args, result in self.calls]
        return "def check(candidate):\n" + "\n".join(lines) + "\n"


def read_stdin_tests(problem: Problem) -> StdinTests | None:
    """Read a problem's tests that are pairs of input and output; None if it has none.

    Accepted forms: `input_output` of APPS and TACO (`{"inputs": [...], "outputs": [...], "fn_name"}`, also as JSON
    text), `{"input": [...], "output": [...]}` of CodeContests, and lists of `{"input", "output"}`, which in
    LiveCodeBench have a `testtype` (`functional`: they call `metadata.func_name`). Raises `ValueError` for malformed
    ones.
    """
    pairs: list[tuple[Any, Any]] = []
    function = None
    for column in _COLUMNS:
        value = _parse_json(problem.fields.get(column))
        if isinstance(value, dict) and isinstance(value.get("fn_name"), str):
            function = value["fn_name"]
        listed = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
        if any(each.get("testtype") == _OF_FUNCTIONS for each in listed):
            function = _named_function(problem)
        pairs += _pairs(column, value)
    if not pairs:
        return None
    if function is not None:
        if not function.isidentifier():
            raise ValueError("input_output.fn_name is no name")
        return StdinTests((), function, tuple(_call(arguments, expected) for arguments, expected in pairs))
    return StdinTests(tuple(ProgramTest(_text(arguments), _text(expected)) for arguments, expected in pairs))


def _named_function(problem: Problem) -> str:
    """Return the name of the function that LiveCodeBench's tests call. Raises `ValueError` if it is missing."""
    metadata = _parse_json(problem.fields.get("metadata"))
    named = metadata.get("func_name") if isinstance(metadata, dict) else None
    if not isinstance(named, str):
        raise ValueError("its tests call a function that metadata.func_name does not name")
    return named


def failed_test(python: PythonRunner, code: str, tests: Sequence[ProgramTest], *, timeout_s: float) -> str | None:
    """Run a program on each input and return why it fails; None if all outputs are right. Raises `SandboxError`.

    The expected outputs never enter the sandbox, so that no program can copy them.

    Args:
        python: Runs the program.
        code: The program.
        tests: Inputs and expected outputs.
        timeout_s: Time limit of each test, in seconds.
    """
    for begin in range(0, len(tests), _AT_ONCE):
        batch = tests[begin : begin + _AT_ONCE]
        outcomes = _run(python, code, [test.stdin for test in batch], timeout_s)
        for number, (test, (reason, output)) in enumerate(zip(batch, outcomes, strict=True), start=begin + 1):
            if reason or not is_same_output(output, test.stdout):
                return f"test {number} of {len(tests)}: {reason or 'wrong'}"
    return None


def is_same_output(output: str, expected: str) -> bool:
    """Return whether two outputs have the same words; decimal numbers may differ by a relative error of 1e-6."""
    actual, expected_words = output.split(), expected.split()
    return len(actual) == len(expected_words) and all(map(_is_same_word, actual, expected_words))


def _is_same_word(actual: str, expected: str) -> bool:
    if actual == expected:
        return True
    if "." not in expected:
        return False  # integers and words must be the same
    try:
        number, target = float(actual), float(expected)
    except ValueError:
        return False
    return abs(number - target) <= _TOLERANCE * max(1.0, abs(target))


def _run(python: PythonRunner, code: str, inputs: list[str], seconds: float) -> list[tuple[str, str]]:
    """Return (reason, output) for each input; the reason is empty for a program that ended well.

    Args:
        python: Runs the program.
        code: The program.
        inputs: Standard input of each run.
        seconds: Time limit of each run.
    """
    # The program cannot know the mark in advance, so that it cannot print a line of outcomes itself.
    mark = secrets.token_hex(16)
    batch = {"code": code, "inputs": inputs, "seconds": seconds, "most": _MOST_OUTPUT // len(inputs), "mark": mark}
    done = python.run(_RUNNER, stdin=json.dumps(batch) + "\n", timeout_s=len(inputs) * seconds + _START_S)
    for line in reversed(done.output.split("\n")):
        if line.startswith(f"{mark} "):
            outcomes: list[tuple[str, str]] = json.loads(line.removeprefix(f"{mark} "))
            if len(outcomes) == len(inputs):
                return outcomes
    if done.returncode in (126, 127):
        last = done.output.strip().splitlines()[-1:] or ["it printed nothing"]
        raise SandboxError(f"code cannot be judged in this sandbox: {last[0]}", type_="judge", details=done.output)
    return [("time" if done.timed_out else "ended", "")] * len(inputs)


def _parse_json(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _pairs(column: str, value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, list) and value and all(isinstance(each, dict) and "input" in each for each in value):
        if any("output" not in each for each in value):
            raise ValueError(f"{column} has an input without an output")
        return [(each["input"], each["output"]) for each in value]
    if not isinstance(value, dict):
        return []
    for input_key, output_key in (("inputs", "outputs"), ("input", "output")):
        inputs, outputs = value.get(input_key), value.get(output_key)
        if isinstance(inputs, list) and isinstance(outputs, list):
            if len(inputs) != len(outputs):
                raise ValueError(f"{column} has {len(inputs)} inputs and {len(outputs)} outputs")
            return list(zip(inputs, outputs, strict=True))
    return []


def _text(value: Any) -> str:
    """Return an input or output as text; some data sets have lists of lines."""
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _call(arguments: Any, result: Any) -> tuple[list[Any], Any]:
    """Return the arguments and the expected result of a function's test; APPS wraps the result into a list."""
    if isinstance(arguments, str):
        arguments = [json.loads(line) for line in arguments.split("\n") if line.strip()]
        result = json.loads(result) if isinstance(result, str) else result
    # LiveCodeBench: one JSON value per line for each argument. APPS: a list of arguments.
    elif isinstance(result, list) and len(result) == 1:
        result = result[0]
    if not isinstance(arguments, list):
        raise ValueError("input_output has arguments that are no list")
    return arguments, result
