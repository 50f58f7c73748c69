"""Compares and measures a change by cases: inputs and outputs stay outside of the process with the code under test."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from rollmill.grading.benchmark_runner import GRACE_S, LEAST_S, MUCH_SLOWER, WrongBenchmarkError
from rollmill.grading.cases import OUTPUT_BYTES, CaseInputs
from rollmill.grading.clean_copy import COMMAND_ENVIRONMENT, Overlay, ProblemError
from rollmill.grading.prepared import BuiltProblem
from rollmill.grading.speedup import SEED_BITS
from rollmill.sandboxes.sandbox import CaseAnswers, Execution

_START_TOLERANCE_S = 0.01
_START_TOLERANCE = 0.25
"""Share of the start commit's start-up that is noise. A table that takes longer to compute at import is charged."""
_SHOWN = 80
_AROUND = 30


class Charge(NamedTuple):
    """Seconds that a change needs longer than the start commit outside of the calls that are measured."""

    start_s: float
    decode_s: float
    encode_s: float

    @property
    def total_s(self) -> float:
        """Return the seconds that are added to the change's time."""
        return self.start_s + self.decode_s + self.encode_s


def answer_cases(prepared: BuiltProblem, overlay: Overlay, cases: Sequence[str], limit_s: float) -> CaseAnswers:
    """Have a built tree's program answer cases, in a fresh sandbox. Raises `SandboxError`.

    Args:
        prepared: The start commit, built.
        overlay: The built tree.
        cases: One line each.
        limit_s: Time limit of the program, in seconds.
    """
    with prepared.copies.fresh() as sandbox:
        prepared.copies.restore(sandbox, prepared.folder, overlay)
        return sandbox.answer_cases(
            prepared.problem.worker_command,
            cases,
            timeout_s=limit_s,
            most_bytes=OUTPUT_BYTES,
            env=COMMAND_ENVIRONMENT,
        )


class CaseMeasurement:
    """Has the start commit and one change answer the same cases, each time in fresh sandboxes, never both at once."""

    def __init__(self, prepared: BuiltProblem, changed: Overlay) -> None:
        self._prepared = prepared
        self._changed = changed
        self._inputs = CaseInputs(prepared)
        self._limit_s = prepared.problem.timeout_s
        self.last = Execution(output="", returncode=0)
        """The latest run with the change; its output is what the program wrote to standard error."""
        self.before: list[CaseAnswers] = []
        self.after: list[CaseAnswers] = []
        self.charges: list[Charge] = []
        self.edge_cases = 0

    @property
    def charged_s(self) -> float:
        """Return the mean seconds of a run that were added to the change's time."""
        return fmean(charge.total_s for charge in self.charges) if self.charges else 0.0

    def check_edges(self, seeds: int) -> None:
        """Compare the outputs of edge cases of this number of fresh seeds.

        Raises `WrongBenchmarkError` where they differ, `ProblemError`, `SandboxError`.
        """
        fresh = [secrets.randbits(SEED_BITS) for _ in range(seeds)]
        for cases in self._inputs.generate("edge", fresh):
            self._answer_both(cases, "the outputs of edge cases are wrong", changed_first=False)
            self.edge_cases += len(cases)

    def run_pair(self, seed: int, changed_first: bool) -> tuple[float, float]:
        """Return the seconds before and after the change, on the cases of that seed.

        Raises as `check_edges` does.
        """
        (cases,) = self._inputs.generate("speed", [seed])
        before, after = self._answer_both(cases, "the benchmark's outputs are wrong", changed_first=changed_first)
        charge = _charge(before, after)
        self.before.append(before)
        self.after.append(after)
        self.charges.append(charge)
        before_s = sum(time.answer_s for time in before.times)
        after_s = sum(time.answer_s for time in after.times) + charge.total_s
        # A change that is ten times slower has lost: its next run need not use the problem's whole time limit.
        self._limit_s = min(self._prepared.problem.timeout_s, MUCH_SLOWER * before.seconds + GRACE_S)
        return max(before_s, LEAST_S), max(after_s, LEAST_S)

    def _answer_both(self, cases: list[str], wrong: str, *, changed_first: bool) -> tuple[CaseAnswers, CaseAnswers]:
        """Return the answers before and after the change; `wrong` begins the error's message where they differ."""
        runs = {changed: self._answer(changed, cases) for changed in (changed_first, not changed_first)}
        before, after = runs[False], runs[True]
        self.last = Execution(output=after.errors, returncode=after.returncode)
        self._require_start(before)
        why = first_difference(cases, before, after)
        if why:
            # Only a program that reproduces its outputs can prove a change wrong.
            self._require_start_again(cases, before)
            raise WrongBenchmarkError(f"{wrong}: {why}")
        return before, after

    def _answer(self, changed: bool, cases: Sequence[str]) -> CaseAnswers:
        overlay, limit_s = self._prepared.overlay, self._prepared.problem.timeout_s
        if changed:
            overlay, limit_s = self._changed, self._limit_s
        return answer_cases(self._prepared, overlay, cases, limit_s)

    def _require_start(self, before: CaseAnswers) -> None:
        if before.fault:
            name, number = self._prepared.problem.instance_id, len(before.outputs) + 1
            raise ProblemError(
                f"worker_command of {name} fails at the start commit, in case {number}: {before.fault}",
                details=before.errors[-4000:],
            )

    def _require_start_again(self, cases: list[str], before: CaseAnswers) -> None:
        again = self._answer(False, cases)
        self._require_start(again)
        why = first_difference(cases, before, again)
        if why:
            name = self._prepared.problem.instance_id
            raise ProblemError(f"worker_command of {name} gave two outputs for one case at the start commit: {why}")


def _charge(before: CaseAnswers, after: CaseAnswers) -> Charge:
    """Return what the change needs longer outside of the measured calls: each part for itself, so that none hides."""
    start_s = before.times[0].decode_s  # the first case is decoded while the program starts
    tolerance_s = _START_TOLERANCE_S + _START_TOLERANCE * start_s
    decode_s = sum(time.decode_s for time in after.times[1:]) - sum(time.decode_s for time in before.times[1:])
    encode_s = sum(time.encode_s for time in after.times) - sum(time.encode_s for time in before.times)
    return Charge(
        start_s=max(after.times[0].decode_s - start_s - tolerance_s, 0.0),
        decode_s=max(decode_s, 0.0),
        encode_s=max(encode_s, 0.0),
    )


def first_difference(cases: Sequence[str], before: CaseAnswers, after: CaseAnswers) -> str | None:
    """Describe the first case whose outputs differ, or whose output is missing; None if all are equal."""
    for number, (case, expected) in enumerate(zip(cases, before.outputs, strict=True), start=1):
        name = f"case {number} of {len(cases)}, {_cut(case)}"
        if number > len(after.outputs):
            said = after.errors.strip().splitlines()[-1:]
            return f"{name}: {after.fault}{f' ({said[0][:200]})' if said else ''}"
        actual = after.outputs[number - 1]
        if actual != expected:
            same = _common_length(expected, actual)
            begin = max(same - _AROUND, 0)
            found, wanted = (_cut(text[begin:]) for text in (actual, expected))
            return f"{name}: at character {same + 1} of the output: {found}, not {wanted}"
    return None


def _common_length(one: str, other: str) -> int:
    """Return the length of the beginning that two texts share, by bisection: comparing slices is fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
