"""Has the start commit generate the cases that a change is judged by, in a sandbox that the change never enters."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rollmill.grading.clean_copy import COMMAND_ENVIRONMENT, ProblemError
from rollmill.grading.prepared import BuiltProblem, failure
from rollmill.sandboxes.files import read_file
from rollmill.sandboxes.sandbox import Sandbox, SandboxError

MOST_BYTES = 64 << 20
"""Of all cases of one seed and part."""

Part = Literal["edge", "speed"]


class CaseInputs:
    """Generates cases at the start commit; `open_inputs` makes it."""

    def __init__(self, prepared: BuiltProblem, sandbox: Sandbox) -> None:
        self._problem = prepared.problem
        self._sandbox = sandbox

    def cases(self, part: Part, seed: int) -> list[str]:
        """Return the cases of a seed, the shortest first.

        The first case is decoded while the program starts, where small differences of time are not counted: so it must
        not hold much work. Raises `ProblemError` where there are none, `SandboxError`.
        """
        path = f"/tmp/{uuid.uuid4().hex}"  # noqa: S108
        done = self._sandbox.execute(
            f"(\n{self._problem.inputs_command}\n) > {path}",
            env={**COMMAND_ENVIRONMENT, "BENCH_SEED": str(seed), "BENCH_PART": part},
        )
        if why := failure(done):
            raise self._fault(part, why, done.output)
        try:
            text = read_file(self._sandbox, path, most=MOST_BYTES).decode()
        except SandboxError as error:
            if error.type != "contents":
                raise
            raise self._fault(part, str(error)) from error
        except UnicodeDecodeError as error:
            raise self._fault(part, f"its output is not UTF-8: {error.reason} at byte {error.start}") from error
        self._sandbox.execute(f"rm -f {path}")
        cases = text.removesuffix("\n").split("\n")
        if "" in cases:
            number = cases.index("") + 1
            raise self._fault(part, f"line {number} is empty" if text else "it prints no case")
        shortest = min(range(len(cases)), key=lambda number: len(cases[number]))
        return [cases[shortest], *cases[:shortest], *cases[shortest + 1 :]]

    def _fault(self, part: Part, why: str, output: str = "") -> ProblemError:
        name = self._problem.instance_id
        return ProblemError(f"inputs_command of {name} fails with BENCH_PART={part}: {why}", details=output[-4000:])


@contextmanager
def open_inputs(prepared: BuiltProblem) -> Iterator[CaseInputs]:
    """Open a fresh sandbox with the built start commit, and yield its cases."""
    with prepared.copies.fresh() as sandbox:
        prepared.copies.restore(sandbox, prepared.folder, prepared.overlay)
        yield CaseInputs(prepared, sandbox)
