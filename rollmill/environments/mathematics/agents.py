"""Agents of the mathematics environment: one reasons, one writes programs."""

from __future__ import annotations

import random

from rollmill.environments.environment import Step
from rollmill.environments.mathematics.state import MathState, wrong_number
from rollmill.environments.parsing import last_boxed, last_python
from rollmill.environments.tools import PythonRunner
from rollmill.records import Message
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.sandbox import Execution

_SHOWN_BYTES = 1000
_UNKNOWN = "I do not know."
_TOGETHER = (
    "Another agent works on the same problem. You are done when your two answers agree, so check yours "
    "against the other one, and keep to yours where you are sure."
)
_REASONER = r"""You solve a mathematics problem. Reason step by step, then write the final answer in \boxed{}.

Example of the last line:
\boxed{42}

Write nothing but the answer in \boxed{}. Only the last one counts."""
_TOOL_USER = """You solve a mathematics problem with a Python program. Write the program in one block that begins with
a line ```python and ends with a line ```. Its last printed line must be the answer and nothing else.

Example:
```python
print(6 * 7)
```

The program runs alone, with the standard library, without input and for a few seconds. Only the last block counts."""


class Reasoner:
    r"""Answers in `\boxed{}`."""

    def __init__(self, state: MathState, name: str) -> None:
        self._state = state
        self._name = name
        self._system = _system(_REASONER, state)

    def prompt(self) -> list[Message]:
        """See `Agent`."""
        return self._state.shown(self._name, self._system)

    def act(self, completion: str) -> Step:
        """See `Agent`. Raises `VerifierFailed`."""
        answer = last_boxed(completion)
        if answer is None:
            return self._state.refuse(self._name, r"it has no \boxed{} with an answer in it")
        return self._state.take(self._name, answer)

    def oracle(self) -> str:
        """Return the ground truth in a box."""
        return _UNKNOWN if self._state.ground_truth is None else f"\\boxed{{{self._state.ground_truth}}}"

    def random(self, rng: random.Random) -> str:
        """Return a wrong number in a box."""
        return f"\\boxed{{{wrong_number(rng, self._state.ground_truth)}}}"


class ToolUser:
    """Answers by the output of a program, which runs in a sandbox."""

    def __init__(self, state: MathState, name: str, python: PythonRunner) -> None:
        self._state = state
        self._name = name
        self._python = python
        self._system = _system(_TOOL_USER, state)
        self._last = ""

    def prompt(self) -> list[Message]:
        """See `Agent`."""
        return self._state.shown(self._name, self._system, self._last)

    def act(self, completion: str) -> Step:
        """See `Agent`. Raises `VerifierFailed` and `SandboxError`, never for errors of the program."""
        program = last_python(completion)
        if program is None:
            return self._state.refuse(self._name, "it has no closed ```python block")
        execution = self._python.run(program)
        output = CappedOutput(_SHOWN_BYTES)
        output.add(execution.output.encode())
        self._last = f"Your last program:\n```python\n{program}```\nIt printed:\n{output.text().strip() or '(nothing)'}"
        fault = _fault(execution)
        lines = execution.output.strip().splitlines()
        step = self._state.refuse(self._name, fault) if fault else self._state.take(self._name, lines[-1].strip())
        return Step(step.reward, {**step.info, "output": output.text(), "returncode": execution.returncode})

    def oracle(self) -> str:
        """Return a program that prints the ground truth."""
        return _UNKNOWN if self._state.ground_truth is None else _printing(self._state.ground_truth)

    def random(self, rng: random.Random) -> str:
        """Return a program that prints a wrong number."""
        return _printing(wrong_number(rng, self._state.ground_truth))


def _fault(execution: Execution) -> str | None:
    if execution.timed_out:
        return "the program did not end in time"
    if execution.killed_by:
        return f"the program was ended: {execution.killed_by}"
    if execution.returncode != 0:
        return f"the program failed with code {execution.returncode}"
    return None if execution.output.strip() else "the program printed nothing"


def _system(text: str, state: MathState) -> str:
    return f"{text}\n\n{_TOGETHER}" if state.agents > 1 else text


def _printing(text: str) -> str:
    return f"```python\nprint({text!r})\n```"
