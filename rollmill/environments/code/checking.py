"""Judge programs by tests in a sandbox, with the judge of `rollmill.environments.code.inside`."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from rollmill.environments.code.inside.judge import SET_UP_FAILED
from rollmill.environments.code.subject import Subject
from rollmill.environments.tools import PythonRunner
from rollmill.sandboxes.sandbox import Execution, SandboxError
from rollmill.verifiers.answer_tag import encodable

_PACKAGE = "rollmill.environments.code.inside"
_MODULES = ("values", "process", "mirror", "link", "program", "tester", "judge")
"""Modules of the judge in import order: each after those that it imports."""
_PROGRAM = """import os, sys, types
try:
    for name, source in {sources!r}.items():
        module = sys.modules[name] = types.ModuleType(name)
        exec(compile(source, name, "exec"), module.__dict__)
except Exception as error:
    print(type(error).__name__, error, flush=True)
    os._exit({failed})
module.main()
"""
_NOT_JUDGED = (SET_UP_FAILED, 126, 127)
"""Return codes that code under test cannot produce: the judge's own, and the shell's if Python is missing."""
_START_S = 5.0
"""Seconds for the judge's start, added to the sum of the cases' time limits."""
_MOST_CASES = 8
"""Most cases per sandbox; each needs two processes."""
_FAILURES_SHOWN = 3


class Case(NamedTuple):
    """Tests and the code that they run on."""

    code: str
    tests: str
    secret: bool = False
    """If true, agents learn only whether the tests pass, not which ones fail."""


class CaseOutcome(NamedTuple):
    """The outcome of one case."""

    reason: str
    """`passed`; `wrong` (an assertion), `raised`, `time`, `ended` (the code ended its process, or the judge), `load`
    (the code does not run or lacks the function), `malformed` (the tests do not parse or have no assert), `unused`
    (they never call the code)."""
    failures: tuple[str, ...] = ()
    """The first failures, one line each, for agents. Secret tests have none, except why the code does not load."""

    @property
    def passed(self) -> bool:
        """Return whether all of the tests passed."""
        return self.reason == "passed"


class Checker:
    """Runs tests of one problem."""

    def __init__(self, python: PythonRunner, subject: Subject) -> None:
        self._python = python
        self._subject = subject

    @property
    def timeout_s(self) -> float:
        """Return the time limit in seconds of a case that names none."""
        return self._python.timeout_s

    def check(self, cases: Sequence[Case], *, timeout_s: float | None = None) -> list[CaseOutcome]:
        """Run the cases and return their outcomes in order.

        The code of one case can kill the process that judges the other cases of the same call. Raises `SandboxError`
        if the sandbox failed, never because of code or tests.

        Args:
            cases: Tests, each with the code that they run on.
            timeout_s: Time limit of each case, in seconds; None for the checker's own.
        """
        seconds = self._python.timeout_s if timeout_s is None else timeout_s
        outcomes: list[CaseOutcome] = []
        for begin in range(0, len(cases), _MOST_CASES):
            outcomes += self._check(cases[begin : begin + _MOST_CASES], seconds)
        return outcomes

    def _check(self, cases: Sequence[Case], seconds: float) -> list[CaseOutcome]:
        key = secrets.token_bytes(32)
        batch = {"key": key.hex(), "cases": [self._encode_case(case, seconds) for case in cases]}
        done = self._python.run(
            judge_program(),
            stdin=f"{len(cases)}\n{json.dumps(batch)}",  # orjson refuses lone surrogates
            timeout_s=len(cases) * seconds + _START_S,
        )
        outcomes = _signed_line(done.output, key)
        if outcomes is None:
            _require_set_up(done)
            reason = "time" if done.timed_out else "ended"
            outcome = {"reason": reason, "failures": [done.killed_by or "the process of the tests was ended"]}
            outcomes = [outcome] * len(cases)
        return [_outcome(each, case) for each, case in zip(outcomes, cases, strict=True)]

    def _encode_case(self, case: Case, seconds: float) -> dict[str, Any]:
        return {
            "prelude": self._subject.prelude,
            "code": case.code,
            "names": self._subject.names,
            "tests": case.tests,
            "secret": case.secret,
            "most": 1 if case.secret else _FAILURES_SHOWN,
            "seconds": seconds,
        }


@cache
def judge_program() -> str:
    """Return the judge's modules as one program, which needs no installed package."""
    folder = resources.files(_PACKAGE)
    sources = {f"{_PACKAGE}.{name}": folder.joinpath(f"{name}.py").read_text("utf-8") for name in _MODULES}
    return _PROGRAM.format(sources=sources, failed=SET_UP_FAILED)


def _signed_line(output: str, key: bytes) -> list[dict[str, Any]] | None:
    for line in output.split("\n"):
        if line.startswith("outcomes ") and line.count(" ") >= 2:
            _, signed, payload = line.split(" ", 2)
            expected = hashlib.blake2b(payload.encode(errors="replace"), key=key).hexdigest()
            # Any program can print such a line, but only the judge knows the key.
            if secrets.compare_digest(signed.encode(errors="replace"), expected.encode()):
                outcomes: list[dict[str, Any]] = json.loads(payload)
                return outcomes
    return None


def _require_set_up(done: Execution) -> None:
    if done.returncode in _NOT_JUDGED:
        last = done.output.strip().splitlines()[-1:] or ["it printed nothing"]
        raise SandboxError(f"code cannot be judged in this sandbox: {last[0]}", type_="judge", details=done.output)


def _outcome(outcome: dict[str, Any], case: Case) -> CaseOutcome:
    reason = outcome["reason"]
    # Failures of secret tests would show them to the agent; a load failure is the code's own.
    shown = not case.secret or reason == "load"
    return CaseOutcome(reason, tuple(map(encodable, outcome["failures"])) if shown else ())
