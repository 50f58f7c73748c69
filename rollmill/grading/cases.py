"""Has the start commit generate the cases that a change is judged by, in a sandbox that the change never enters."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Literal

from rollmill.grading.clean_copy import COMMAND_ENVIRONMENT, ProblemError
from rollmill.grading.prepared import BuiltProblem, failure
from rollmill.sandboxes.files import read_file
from rollmill.sandboxes.sandbox import Sandbox, SandboxError

MOST_BYTES = 64 << 20
"""Of all cases of one seed and part."""
OUTPUT_BYTES = 10 << 20
"""Of all outputs of one run."""

Part = Literal["edge", "speed"]


class CaseInputs:
    """Generates cases at the start commit."""

    def __init__(self, prepared: BuiltProblem) -> None:
        self._prepared = prepared
        self._problem = prepared.problem

    def generate(self, part: Part, seeds: Iterable[int]) -> list[list[str]]:
        """Return the cases of each seed, the shortest first, from one fresh sandbox with the built start commit.

        The first case is decoded while the program starts, where small differences of time are not counted: so it must
        not hold much work. Raises `ProblemError` where there are none, `SandboxError`.
        """
        copies = self._prepared.copies
        with copies.fresh() as sandbox:
            copies.restore(sandbox, self._prepared.folder, self._prepared.overlay)
            return [_shortest_first(self._lines(sandbox, part, seed)) for seed in seeds]

    def _lines(self, sandbox: Sandbox, part: Part, seed: int) -> list[str]:
        path = f"/tmp/{uuid.uuid4().hex}"  # noqa: S108
        done = sandbox.execute(
            f"(\n{self._problem.inputs_command}\n) > {path}",
            env={**COMMAND_ENVIRONMENT, "BENCH_SEED": str(seed), "BENCH_PART": part},
        )
        if why := failure(done):
            raise self._fault(part, why, done.output)
        try:
            text = read_file(sandbox, path, most=MOST_BYTES).decode()
        except SandboxError as error:
            if error.type != "contents":
                raise
            raise self._fault(part, str(error)) from error
        except UnicodeDecodeError as error:
            raise self._fault(part, f"its output is not UTF-8: {error.reason} at byte {error.start}") from error
        cases = text.removesuffix("\n").split("\n")
        if "" in cases:
            raise self._fault(part, f"line {cases.index('') + 1} is empty" if text else "it prints no case")
        return cases

    def _fault(self, part: Part, why: str, output: str = "") -> ProblemError:
        name = self._problem.instance_id
        return ProblemError(f"inputs_command of {name} fails with BENCH_PART={part}: {why}", details=output[-4000:])


def _shortest_first(cases: list[str]) -> list[str]:
    shortest = min(range(len(cases)), key=lambda number: len(cases[number]))
    return [cases[shortest], *cases[:shortest], *cases[shortest + 1 :]]
