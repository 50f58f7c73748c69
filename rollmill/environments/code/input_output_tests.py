"""Tests that are pairs of input and output: of a program (stdin and stdout) or of a function (arguments and result)."""

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
_TESTS_PER_SANDBOX = 8
"""Inputs that one sandbox runs, one after another."""
_MAX_OUTPUT_BYTES = 1 << 20
"""Of all outputs of one sandbox together; a program that writes more than its share fails."""
_CANNOT_RUN = (126, 127)
"""A shell's return codes for an interpreter that cannot be executed, or is not there."""
_FUNCTIONAL = "functional"
"""LiveCodeBench's `testtype` of tests that call a function."""
_TOLERANCE = 1e-6
_RUNNER = """import json, os, subprocess, sys, tempfile
batch = json.loads(sys.stdin.readline())
with open("/tmp/solution.py", "w", encoding="utf-8", errors="replace") as file:
    file.write(batch["code"])
outcomes = []
for text in batch["inputs"]:
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout:
        stdin.write(text.encode("utf-8", "surrogatepass"))
        stdin.seek(0)
        command = [sys.executable, "-s", "-B", "/tmp/solution.py"]
        streams = {"stdin": stdin, "stdout": stdout, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, start_new_session=True, **streams)
        try:
            reason = "" if process.wait(batch["seconds"]) == 0 else "raised"
        except subprocess.TimeoutExpired:
            reason = "time"
        try:
            os.killpg(process.pid, 9)
        except OSError:
            pass
        process.wait()
        size = stdout.seek(0, 2)
        stdout.seek(0)
        if size > batch["max_bytes"]:
            reason = reason or "output"
        outcomes.append([reason, stdout.read(batch["max_bytes"]).decode("utf-8", "replace")])
print("\\n" + batch["mark"], json.dumps(outcomes), flush=True)
"""


class ProgramTest(NamedTuple):
    """One test: standard input and expected standard output."""

    stdin: str
    stdout: str


class InputOutputTests(NamedTuple):
    """Tests of a program (`tests`), or of a function (`function` and `calls`)."""

    tests: tuple[ProgramTest, ...]
    function: str | None = None
    calls: tuple[tuple[list[Any], Any], ...] = ()
    """Arguments and expected result of each test of a function."""

    def as_assertions(self) -> str:
        """Return the tests of a function as a `check(candidate)` like HumanEval's: results must be equal."""
        lines = [f"    assert candidate(*{args!r}) == {result!r}" for args, result in self.calls]
        return "def check(candidate):\n" + "\n".join(lines) + "\n"


def read_input_output_tests(problem: Problem) -> InputOutputTests | None:
    """Read a problem's tests that are pairs of input and output; None if it has none.

    Accepted forms: `input_output` of APPS and TACO (`{"inputs": [...], "outputs": [...], "fn_name"}`, also as JSON
    text), `{"input": [...], "output": [...]}` of CodeContests, and lists of `{"input", "output"}`, which in
    LiveCodeBench have a `testtype` (`functional`: they call `metadata.func_name`). Arguments of a function are a list,
    or in LiveCodeBench a text with one JSON value per line. Tests of several columns (public, private, generated) are
    joined. Raises `ValueError` for malformed ones.
    """
    pairs: list[tuple[Any, Any]] = []
    function = None
    for column in _COLUMNS:
        value = _parse_json(problem.fields.get(column))
        if isinstance(value, dict) and isinstance(value.get("fn_name"), str):
            function = value["fn_name"]
        listed = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
        if any(each.get("testtype") == _FUNCTIONAL for each in listed):
            function = _function_name(problem)
        pairs += _pairs(column, value)
    if not pairs:
        return None
    if function is not None:
        if not function.isidentifier():
            raise ValueError(f"the tests call {function!r}, which is not the name of a function")
        return InputOutputTests((), function, tuple(_call(arguments, expected) for arguments, expected in pairs))
    return InputOutputTests(tuple(ProgramTest(_text(arguments), _text(expected)) for arguments, expected in pairs))


def _function_name(problem: Problem) -> str:
    """Return the name of the function that LiveCodeBench's tests call. Raises `ValueError` if it is missing."""
    metadata = _parse_json(problem.fields.get("metadata"))
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        raise ValueError("its tests call a function that metadata.func_name does not name")
    return name


def find_failed_test(python: PythonRunner, code: str, tests: Sequence[ProgramTest], *, timeout_s: float) -> str | None:
    """Run a program on each input and return the first failure as text; None if all outputs are right.

    The expected outputs never enter the sandbox, so that no program can copy them. Raises `SandboxError` if programs
    cannot be run.

    Args:
        python: Runs the program.
        code: The program.
        tests: Inputs and expected outputs.
        timeout_s: Time limit of each test, in seconds.
    """
    for begin in range(0, len(tests), _TESTS_PER_SANDBOX):
        batch = tests[begin : begin + _TESTS_PER_SANDBOX]
        outcomes = _run(python, code, [test.stdin for test in batch], timeout_s)
        for number, (test, (reason, output)) in enumerate(zip(batch, outcomes, strict=True), start=begin + 1):
            if reason or not is_same_output(output, test.stdout):
                return f"test {number} of {len(tests)}: {reason or 'wrong'}"
    return None


def is_same_output(output: str, expected: str) -> bool:
    """Return whether two outputs have the same tokens, separated by white space.

    A token that is expected to be a number with a decimal point may differ by `1e-6 * max(1, |expected|)`.
    """
    actual_tokens, expected_tokens = output.split(), expected.split()
    return len(actual_tokens) == len(expected_tokens) and all(map(_is_same_token, actual_tokens, expected_tokens))


def _is_same_token(actual: str, expected: str) -> bool:
    if actual == expected:
        return True
    if "." not in expected:
        return False  # integers, words, and numbers without a point such as 1e-5 must be the same
    try:
        number, target = float(actual), float(expected)
    except ValueError:
        return False
    return abs(number - target) <= _TOLERANCE * max(1.0, abs(target))


def _run(python: PythonRunner, code: str, inputs: list[str], seconds: float) -> list[tuple[str, str]]:
    """Return (reason, output) for each input; the reason is empty for a program that exited with 0.

    Other reasons:

    - `raised`: it exited with another code, as Python does after an exception;
    - `time`: it exceeded its time limit, or the runner did;
    - `output`: it wrote more than its share of `_MAX_OUTPUT_BYTES`;
    - `ended`: the runner reported nothing, for example since the program killed it.

    Raises `SandboxError` if the interpreter cannot be run.

    Args:
        python: Runs the program.
        code: The program.
        inputs: Standard input of each run.
        seconds: Time limit of each run.
    """
    # The program's standard output is a file, but it may write to the runner's: the mark tells the runner's line from
    # such text, which may lack a newline at its end, and the last such line counts. A program that reads the mark in
    # the runner's memory gains nothing but time: outputs are compared outside of the sandbox.
    mark = secrets.token_hex(16)
    batch = {
        "code": code,
        "inputs": inputs,
        "seconds": seconds,
        "max_bytes": _MAX_OUTPUT_BYTES // len(inputs),
        "mark": mark,
    }
    done = python.run(_RUNNER, stdin=json.dumps(batch) + "\n", timeout_s=len(inputs) * seconds + _START_S)
    for line in reversed(done.output.split("\n")):
        if line.startswith(f"{mark} "):
            outcomes: list[tuple[str, str]] = json.loads(line.removeprefix(f"{mark} "))
            if len(outcomes) == len(inputs):
                return outcomes
    if done.returncode in _CANNOT_RUN:
        last_line = (done.output.strip().splitlines() or ["it printed nothing"])[-1]
        raise SandboxError(f"code cannot be judged in this sandbox: {last_line}", type_="judge", details=done.output)
    return [("time" if done.timed_out else "ended", "")] * len(inputs)


def _parse_json(value: Any) -> Any:
    """Parse a text that is a JSON object or list; return any other value unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _pairs(column: str, value: Any) -> list[tuple[Any, Any]]:
    """Return the (input, output) pairs of one column's value; none if it has another form."""
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
    """Return the arguments and the expected result of a function's test."""
    # LiveCodeBench: a text with one JSON value per line for each argument, and the result as JSON.
    if isinstance(arguments, str):
        arguments = [json.loads(line) for line in arguments.split("\n") if line.strip()]
        result = json.loads(result) if isinstance(result, str) else result
    # APPS and TACO: a list of arguments, and the result in a list of its own. A result [5] is stored as [[5]].
    elif isinstance(result, list) and len(result) == 1:
        result = result[0]
    if not isinstance(arguments, list):
        raise ValueError("input_output has arguments that are not a list")
    return arguments, result
