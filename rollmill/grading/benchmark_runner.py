"""Runs the benchmark at the start commit and with the change, each run in a fresh sandbox."""

from __future__ import annotations

from rollmill.grading.clean_copy import COMMAND_ENVIRONMENT, Overlay, ProblemError
from rollmill.grading.prepared import BuiltProblem, failure
from rollmill.sandboxes.sandbox import Execution

LEAST_S = 0.001
"""Minimum seconds of a run after the overhead is subtracted: a ratio needs positive times."""
MUCH_SLOWER, GRACE_S = 10.0, 10.0


class WrongBenchmarkError(Exception):
    """The benchmark failed or printed another result with the change; the message says which."""


class Measurement:
    """Measures one change against the start commit on the same inputs.

    Every run is in a fresh sandbox with the built tree, so that no run affects a later one, in the work tree or
    elsewhere. Times are taken by the sandbox's host, minus that of the fastest empty command.
    """

    def __init__(self, prepared: BuiltProblem, changed: Overlay) -> None:
        self._prepared = prepared
        self._overlays = {False: prepared.overlay, True: changed}
        self._limit_s = prepared.problem.timeout_s
        self.overhead_s = float("inf")
        self.last = Execution(output="", returncode=0)
        """The latest run with the change."""

    def run_pair(self, seed: int, changed_first: bool) -> tuple[float, float]:
        """Return the seconds before and after the change, on the inputs of that seed.

        Raises `WrongBenchmarkError` if the output differs from the start commit's, `ProblemError` if the start
        commit's run fails or its output is not reproducible, `SandboxError`.
        """
        runs = {changed: self._run(changed, seed) for changed in (changed_first, not changed_first)}
        before, after = runs[False], runs[True]
        self.last = after
        self._require_baseline(before)
        before_s = self._seconds(before)
        # A change that is ten times slower has lost: its next run need not use the problem's whole time limit.
        self._limit_s = min(self._prepared.problem.timeout_s, MUCH_SLOWER * before_s + GRACE_S)
        why = failure(after)
        if why:
            slower = f" (the start commit took {before_s:.2f} s)" if after.timed_out else ""
            raise WrongBenchmarkError(f"the benchmark failed: {why}{slower}")
        if after.output != before.output:
            # Only a benchmark that reproduces its output can prove a change wrong.
            self._require_baseline_again(seed, before)
            raise WrongBenchmarkError(
                f"the benchmark's output is wrong: {_first_difference(before.output, after.output)}"
            )
        return before_s, self._seconds(after)

    def _run(self, changed: bool, seed: int) -> Execution:
        problem, copies = self._prepared.problem, self._prepared.copies
        with copies.fresh() as sandbox:
            copies.restore(sandbox, self._prepared.folder, self._overlays[changed])
            self.overhead_s = min(self.overhead_s, sandbox.execute(":").seconds)
            return sandbox.execute(
                problem.benchmark_command,
                timeout_s=self._limit_s if changed else problem.timeout_s,
                env={**COMMAND_ENVIRONMENT, "BENCH_SEED": str(seed)},
            )

    def _seconds(self, run: Execution) -> float:
        return max(run.seconds - self.overhead_s, LEAST_S)

    def _require_baseline(self, run: Execution) -> None:
        why = failure(run) or ("it prints too much to compare" if run.truncated else None)
        why = why or ("it prints nothing to compare" if not run.output.strip() else None)
        if why:
            name = self._prepared.problem.instance_id
            raise ProblemError(f"benchmark_command of {name} fails at the start commit: {why}", details=run.output)

    def _require_baseline_again(self, seed: int, before: Execution) -> None:
        again = self._run(False, seed)
        self._require_baseline(again)
        if again.output != before.output:
            name = self._prepared.problem.instance_id
            raise ProblemError(
                f"benchmark_command of {name} gave two results for one BENCH_SEED at the start commit: "
                + _first_difference(before.output, again.output)
            )


def _first_difference(expected: str, actual: str) -> str:
    """Describe the first line in which two outputs differ."""
    lines, others = expected.splitlines(), actual.splitlines()
    for number, line in enumerate(lines):
        other = others[number] if number < len(others) else None
        if other != line:
            shown = "nothing" if other is None else repr(other[:200])
            return f"line {number + 1} is {shown}, not {line[:200]!r}"
    return f"{others[len(lines)][:200]!r} follows the last line" if len(others) > len(lines) else "other line ends"
