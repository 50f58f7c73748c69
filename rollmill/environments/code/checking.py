"""Judges programs by tests in a sandbox, by the program of `rollmill.environments.code.inside`."""

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
_MODULES = ("values", "process", "program", "remote", "tester", "judge")
"""Each after those that it imports."""
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
"""Return codes that no code under test can bring about: the judge's own, and the shell's where there is no Python."""
_START_S = 5.0
"""More than the sum of the cases' times."""
_MOST_CASES = 8
"""In one sandbox; each is two processes."""
_FAILURES_SHOWN = 3


class Case(NamedTuple):
    """Tests, and the code that they are to be run on."""

    code: str
    tests: str
    secret: bool = False
    """Nobody is to know more than whether the tests pass."""


class CaseOutcome(NamedTuple):
    """What became of one case."""

    reason: str
    """`passed`; `wrong` (an assertion), `raised`, `time`, `ended` (the code ended its process, or the judge), `load`
    (the code does not run or lacks the function), `malformed` (the tests do not parse or have no assert), `unused`
    (they never call the code)."""
    failures: tuple[str, ...] = ()
    """The first ones, a line each, for agents; of secret tests none, but why the code does not load."""

    @property
    def passed(self) -> bool:
        """Whether all of the tests did."""
        return self.reason == "passed"


class Checker:
    """Runs tests of one problem."""

    def __init__(self, python: PythonRunner, subject: Subject) -> None:
        self._python = python
        self._subject = subject

    @property
    def timeout_s(self) -> float:
        """Of one case that names none."""
        return self._python.timeout_s

    def check(self, cases: Sequence[Case], *, timeout_s: float | None = None) -> list[CaseOutcome]:
        """The outcomes, case by case. Raises `SandboxError` where the sandbox failed, never for code or tests.

        Cases of one call may stand in each other's way: code can end the judge of all. `timeout_s`: of each.
        """
        seconds = self._python.timeout_s if timeout_s is None else timeout_s
        outcomes: list[CaseOutcome] = []
        for begin in range(0, len(cases), _MOST_CASES):
            outcomes += self._check(cases[begin : begin + _MOST_CASES], seconds)
        return outcomes

    def _check(self, cases: Sequence[Case], seconds: float) -> list[CaseOutcome]:
        key = secrets.token_bytes(32)
        given = {"key": key.hex(), "cases": [self._given(case, seconds) for case in cases]}
        done = self._python.run(
            judge_program(),
            stdin=f"{len(cases)}\n{json.dumps(given)}",  # orjson refuses half a character
            timeout_s=len(cases) * seconds + _START_S,
        )
        said = _signed_line(done.output, key)
        if said is None:
            _require_set_up(done)
            reason = "time" if done.timed_out else "ended"
            said = [{"reason": reason, "failures": [done.killed_by or "the process of the tests was ended"]}] * len(
                cases
            )
        return [_outcome(each, case) for each, case in zip(said, cases, strict=True)]

    def _given(self, case: Case, seconds: float) -> dict[str, Any]:
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
    """The modules in one program for any Python, which needs no package of ours."""
    folder = resources.files(_PACKAGE)
    sources = {f"{_PACKAGE}.{name}": folder.joinpath(f"{name}.py").read_text("utf-8") for name in _MODULES}
    return _PROGRAM.format(sources=sources, failed=SET_UP_FAILED)


def _signed_line(output: str, key: bytes) -> list[dict[str, Any]] | None:
    for line in output.split("\n"):
        if line.startswith("outcomes ") and line.count(" ") >= 2:
            _, signed, said = line.split(" ", 2)
            expected = hashlib.blake2b(said.encode(errors="replace"), key=key).hexdigest()
            if secrets.compare_digest(signed.encode(errors="replace"), expected.encode()):
                outcomes: list[dict[str, Any]] = json.loads(said)
                return outcomes
    return None


def _require_set_up(done: Execution) -> None:
    if done.returncode in _NOT_JUDGED:
        last = done.output.strip().splitlines()[-1:] or ["it said nothing"]
        raise SandboxError(f"code cannot be judged in this sandbox: {last[0]}", type_="judge", details=done.output)


def _outcome(said: dict[str, Any], case: Case) -> CaseOutcome:
    reason = said["reason"]
    shown = not case.secret or reason == "load"
    return CaseOutcome(reason, tuple(map(encodable, said["failures"])) if shown else ())
