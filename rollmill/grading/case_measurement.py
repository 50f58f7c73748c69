"""Compares and measures a change by cases: inputs and outputs stay outside of the process with the code under test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from rollmill.grading.benchmark_runner import GRACE_S, MUCH_SLOWER, WrongBenchmarkError
from rollmill.grading.cases import OUTPUT_BYTES, CaseInputs
from rollmill.grading.clean_copy import COMMAND_ENVIRONMENT, Overlay, ProblemError
from rollmill.grading.prepared import BuiltProblem
from rollmill.grading.speedup import SEED_BITS
from rollmill.sandboxes.sandbox import CaseAnswers, Execution

_LEAST_S = 0.005
"""Least seconds of a version: below that, when its process is scheduled decides."""
_START_TOLERANCE_S = 0.01
_START_TOLERANCE = 0.25
"""Share of the start commit's start-up that is noise. A table that takes longer to compute at import is charged."""
_SHOWN = 80
_AROUND = 30


class Charge(NamedTuple):
    """Seconds that a run with the change needs longer than the start commit outside of the measured calls."""

    start_s: float
    decode_s: float
    encode_s: float


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
        self.changed_first: list[bool] = []
        self.edge_cases = 0

    @property
    def charge(self) -> Charge:
        """Return the mean charge of the runs so far."""
        pairs = list(zip(self.before, self.after, strict=True))
        decoding_s, encoding_s = (fmean(_excess(*pair, part) for pair in pairs) for part in (decode_s, encode_s))
        return Charge(self.start_charge_s(), decoding_s, encoding_s)

    def start_charge_s(self) -> float:
        """Return the seconds that the start of the program takes longer with the change, beyond noise.

        They are added to the time of every pair. The mean of all pairs, since one slow start on a busy machine is much
        longer than the calls of a fast change; the change has no case yet that it could work on.
        """
        before_s = fmean(run.times[0].decode_s for run in self.before)
        after_s = fmean(run.times[0].decode_s for run in self.after)
        return max(after_s - before_s * (1 + _START_TOLERANCE) - _START_TOLERANCE_S, 0.0)

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

        What the change needs longer for decoding, or for encoding, is added to its time, each for itself: work that is
        moved there is charged, and does not hide behind another part that became faster.
        Raises as `check_edges` does.
        """
        (cases,) = self._inputs.generate("speed", [seed])
        before, after = self._answer_both(cases, "the benchmark's outputs are wrong", changed_first=changed_first)
        self.before.append(before.model_copy(update={"outputs": []}))
        self.changed_first.append(changed_first)
        self.after.append(after.model_copy(update={"outputs": []}))
        # A change that is ten times slower has lost: its next run need not use the problem's whole time limit.
        self._limit_s = min(self._prepared.problem.timeout_s, MUCH_SLOWER * before.seconds + GRACE_S)
        charged_s = _excess(before, after, decode_s) + _excess(before, after, encode_s)
        return max(before.answer_s, _LEAST_S), max(after.answer_s + charged_s, _LEAST_S)

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


def _excess(before: CaseAnswers, after: CaseAnswers, part: Callable[[CaseAnswers], float]) -> float:
    return max(part(after) - part(before), 0.0)


def decode_s(run: CaseAnswers) -> float:
    """Return the seconds for decoding; the first case is decoded while the program starts."""
    return sum(time.decode_s for time in run.times[1:])


def encode_s(run: CaseAnswers) -> float:
    """Return the seconds for encoding."""
    return sum(time.encode_s for time in run.times)


def first_difference(cases: Sequence[str], before: CaseAnswers, after: CaseAnswers) -> str | None:
    """Describe the first case whose outputs differ, or whose output is missing; None if all are equal."""
    for number, (case, expected) in enumerate(zip(cases, before.outputs, strict=True), start=1):
        name = f"case {number} of {len(cases)}, {_cut(case)}"
        if number > len(after.outputs):
            message = after.errors.strip().splitlines()[-1:]
            return f"{name}: {after.fault}{f' ({message[0][:200]})' if message else ''}"
        actual = after.outputs[number - 1]
        if actual != expected:
            same = _common_length(expected, actual)
            begin = max(same - _AROUND, 0)
            parts = [_cut(text[begin:]) for text in (actual, expected)]
            return f"{name}: at character {same + 1} of the output: {parts[0]}, not {parts[1]}"
    return None


def _common_length(left: str, right: str) -> int:
    """Return the length of the beginning that two texts share, by bisection: comparing slices is fast."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
