"""Grades changes in this process: precheck, clean copy, build, tests, benchmark."""

from __future__ import annotations

import os
import random
import weakref
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from threading import Lock
from typing import Any

from rollmill.errors import InputError, RollmillError
from rollmill.grading import reward_schedule
from rollmill.grading.agent_tree import NoRepositoryError, read_change
from rollmill.grading.benchmark_runner import Measurement, WrongBenchmarkError
from rollmill.grading.case_measurement import CaseMeasurement
from rollmill.grading.clean_copy import CleanCopies, Overlay, difference
from rollmill.grading.evaluation import Evaluation, GitPrecheck, IgnoredChange, SpeedupDetails
from rollmill.grading.flags import IN_ONE_PROCESS, fewer_lines, measured_flags, patch_flags, slowed_flags
from rollmill.grading.machine_lock import Turns
from rollmill.grading.patch import Patch
from rollmill.grading.prepared import BuiltProblem, count_lines, failure, prepare, run_command
from rollmill.grading.problem import GradedProblem
from rollmill.grading.speedup import PairCount, compare
from rollmill.grading.test_summary import summary
from rollmill.grading.tree import BadTreeError, show
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.owned_folder import OwnedFolder
from rollmill.sandboxes.remote import RemoteHost
from rollmill.sandboxes.sandbox import Execution, Limits, Sandbox, SandboxHost
from rollmill.sandboxes.tree_limits import built_tree

OUTPUT_BYTES = 20_000
"""Maximum output of each phase that an evaluation keeps."""
MOST_IGNORED = 50
"""Changes that are not graded which an evaluation lists."""


class LocalGrader:
    """Grades the work trees that agents left in a host's sandboxes; thread-safe.

    The agent's sandbox is untrusted: only its files' content is read. The changes become one patch, which is checked
    and applied in fresh sandboxes of the image, where it is built, tested and measured against the start commit. Only
    one benchmark runs at a time, among all processes of this user on this machine. The start commit is built and tested
    once per problem.
    """

    def __init__(
        self,
        host: SandboxHost,
        *,
        ladder: reward_schedule.RewardSchedule = reward_schedule.DEFAULT,
        pairs: PairCount | None = None,
        limits: Limits | None = None,
        most_bytes: int = 256 << 20,
        edge_seeds: int = 3,
    ) -> None:
        """Open a scratch folder and the machine's lock for measuring.

        Args:
            host: Has the agents' sandboxes, and starts the clean ones.
            ladder: Rewards by speedup.
            pairs: Number of measured pairs of runs; None for the defaults.
            limits: Of the clean sandboxes; None for the defaults.
            most_bytes: Maximum content of a work tree.
            edge_seeds: Number of seeds whose edge cases are compared before anything is measured.
        """
        self._edge_seeds = edge_seeds
        self._host = host
        self._ladder = ladder
        self._pairs = pairs or PairCount()
        self._limits = limits or Limits()
        self._most = most_bytes
        self._has_cases = False
        self._preparing: defaultdict[str, Lock] = defaultdict(Lock)
        self._prepared: dict[str, BuiltProblem] = {}
        root = Path(gettempdir()) / f"rollmill-grading-{os.geteuid()}"
        folder = OwnedFolder(root)
        weakref.finalize(self, folder.close)
        self._scratch = folder.path
        self._measuring = Turns(root / "measuring.lock")

    def close(self) -> None:
        """Fail the grading of changes that wait to be measured."""
        self._measuring.close()

    def grade(self, problem: GradedProblem, sandbox_id: str) -> Evaluation:
        """Never raises for what the change did; an evaluation with an `error` is a failure of grading."""
        case = _Case(problem.instance_id)
        try:
            sandbox = self._host.find(sandbox_id)
            self.check(problem, sandbox)
            return self._judge(case, self._prepare(problem), sandbox)
        except _EndedError as ended:
            return case.evaluation(ended.phase, ended.reason, self._ladder.failed)
        except RollmillError as error:
            return case.error(str(error), str(getattr(error, "type", "input")), error.details)
        except OSError as error:
            return case.error(str(error), "system")

    def check(self, problem: GradedProblem, sandbox: Sandbox) -> None:
        """Raise `InputError` where sandboxes like this one cannot answer the cases of the problem."""
        if not problem.by_cases or self._has_cases:
            return
        if not hasattr(sandbox, "answer_cases"):
            raise InputError(
                f"sandboxes of the kind {type(self._host).__name__} have no answer_cases, which {problem.instance_id} "
                "needs for its worker_command: use bubblewrap, docker or remote"
            )
        if isinstance(self._host, RemoteHost) and (fault := self._host.cases_fault()):
            raise InputError(fault)
        self._has_cases = True

    def _prepare(self, problem: GradedProblem) -> BuiltProblem:
        key = problem.model_dump_json()
        # One lock per problem: threads that grade the same problem share its build, others do not wait for it.
        with self._preparing[key]:
            if key not in self._prepared:
                copies = CleanCopies(self._host, problem, self._limits, self._most)
                scratch = Path(mkdtemp(dir=self._scratch))
                self._prepared[key] = prepare(problem, copies, scratch)
            return self._prepared[key]

    def _judge(self, case: _Case, prepared: BuiltProblem, agent_sandbox: Sandbox) -> Evaluation:
        patch = _take_patch(case, prepared, agent_sandbox)
        case.flags += patch_flags(patch.diff)
        changed = _build_and_test(case, prepared, patch)
        if prepared.problem.by_cases:
            details = self._measure_by_cases(case, prepared, changed)
        else:
            details = self._measure_by_benchmark(case, prepared, changed)
        case.facts |= {"speedup": details.average_speedup, "speedup_details": details}
        case.facts["metadata"] |= {"start_commit": prepared.commit, "reward_by": self._ladder.by}
        reward = self._ladder.reward(details.average_speedup, details.low)
        if details.low > 1:
            return case.evaluation(None, None, reward)
        measured = f"{details.average_speedup:.3f} times as fast (95% interval {details.low:.3f} to {details.high:.3f})"
        kind = "slower" if details.high < 1 else "not faster beyond noise"
        return case.evaluation("benchmark", f"{kind}: {measured}", reward)

    def _measure_by_cases(self, case: _Case, prepared: BuiltProblem, changed: Overlay) -> SpeedupDetails:
        """Compare edge cases, then measure. Raises `_EndedError` if an output is wrong."""
        measurement = CaseMeasurement(prepared, changed)
        try:
            measurement.check_edges(self._edge_seeds)
        except WrongBenchmarkError as error:
            raise _EndedError("test", str(error)) from error
        with self._measuring.turn():
            details = self._compare(case, measurement, measurement.start_charge_s)
        charge = measurement.charge
        case.flags += measured_flags(measurement.before, measurement.after, charge)
        case.flags += slowed_flags(measurement.before, measurement.changed_first)
        case.facts["metadata"] = {"edge_cases": measurement.edge_cases, "charged_s": charge._asdict()}
        return details

    def _measure_by_benchmark(self, case: _Case, prepared: BuiltProblem, changed: Overlay) -> SpeedupDetails:
        """Measure `benchmark_command` before and after the change. Raises `_EndedError` if its output is wrong."""
        case.flags.append(IN_ONE_PROCESS)
        measurement = Measurement(prepared, changed)
        with self._measuring.turn():
            details = self._compare(case, measurement, lambda: 0.0)
        case.facts["metadata"] = {"overhead_s": measurement.overhead_s}
        return details

    def _compare(
        self, case: _Case, measurement: Measurement | CaseMeasurement, charge_s: Callable[[], float]
    ) -> SpeedupDetails:
        try:
            # The order is nothing that the change could know or choose.
            return compare(measurement.run_pair, self._pairs, random.SystemRandom(), charge_s)
        except WrongBenchmarkError as error:
            raise _EndedError("benchmark", str(error)) from error
        finally:
            case.note("benchmark", measurement.last)


class _EndedError(Exception):
    """The change failed in `phase` because of `reason`."""

    def __init__(self, phase: str, reason: str) -> None:
        super().__init__(reason)
        self.phase, self.reason = phase, reason


class _Case:
    """The facts about one change, collected phase by phase."""

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self.facts: dict[str, Any] = {}
        self.flags: list[str] = []
        self.left_out: str | None = None
        """Which changes are not graded, in words; None if all are."""

    def note(self, phase: str, done: Execution) -> None:
        """Record the return code and output of a phase's command."""
        output = CappedOutput(OUTPUT_BYTES)
        output.add(done.output.encode("utf-8", "replace"))
        self.facts |= {f"{phase}_returncode": done.returncode, f"{phase}_output": output.text()}

    def evaluation(self, phase: str | None, reason: str | None, reward: float) -> Evaluation:
        """Return the grade with all facts; `phase` is the failed one, None if all passed."""
        if reason and self.left_out:
            reason = f"{reason}; {self.left_out}"
        return Evaluation(
            instance_id=self._instance_id,
            success=phase is None,
            reward=reward,
            reason=reason,
            phase=phase,
            flags=self.flags,
            **self.facts,
        )

    def error(self, message: str, type_: str, details: str = "") -> Evaluation:
        """Return an evaluation without a grade, since grading failed."""
        if details:
            self.facts["metadata"] = {**self.facts.get("metadata", {}), "error_details": details[-OUTPUT_BYTES:]}
        return Evaluation(
            instance_id=self._instance_id,
            success=None,
            reward=None,
            error=message,
            error_type=type_,
            flags=self.flags,
            **self.facts,
        )


def _take_patch(case: _Case, prepared: BuiltProblem, agent_sandbox: Sandbox) -> Patch:
    """Return the allowed part of the change as one patch, and note the rest."""
    try:
        limits = prepared.copies.change_limits
        patch, ignored = read_change(agent_sandbox, prepared.folder, prepared.start, prepared.allowed, limits)
    except BadTreeError as error:
        reason = f"the work tree cannot be judged: {error}"
        is_git = not isinstance(error, NoRepositoryError)
        case.facts["git_precheck"] = GitPrecheck(is_git=is_git, ok=False, reason=reason)
        raise _EndedError("git_precheck", reason) from error
    if ignored:
        number = "1 change is" if len(ignored) == 1 else f"{len(ignored)} changes are"
        case.left_out = f"{number} left out: {ignored[0].reason}" + (", ..." if len(ignored) > 1 else "")
    case.facts["git_precheck"] = GitPrecheck(
        is_git=True,
        ok=True,
        changed_files=[change.path for change in patch.changes],
        raw_status=patch.status,
        raw_diff=patch.diff,
        reason=case.left_out,
        ignored_changes=[IgnoredChange(path=path, reason=reason) for path, reason in ignored[:MOST_IGNORED]],
        ignored_count=len(ignored),
    )
    if not patch.changes:
        raise _EndedError("git_precheck", "no change")
    return patch


def _build_and_test(case: _Case, prepared: BuiltProblem, patch: Patch) -> Overlay:
    """Build and test the change; return the overlay of the built tree, which is read before the tests can alter it."""
    problem, copies = prepared.problem, prepared.copies
    with copies.fresh() as sandbox:
        copies.apply(sandbox, prepared.folder, patch.diff)
        built = run_command(sandbox, problem.build_command)
        case.note("build", built)
        why = failure(built)
        if why:
            raise _EndedError("build", f"the build failed: {why}")
        try:
            overlay = difference(
                prepared.start.digests, copies.read(sandbox, prepared.folder, built_tree(len(prepared.start.digests)))
            )
        except BadTreeError as error:
            raise _EndedError("build", f"the built work tree cannot be judged: {error}") from error
        _require_own_changes(prepared, patch, overlay)
        tested = run_command(sandbox, problem.test_command)
    case.note("test", tested)
    why = failure(tested)
    if why:
        raise _EndedError("test", f"the tests failed: {why}")
    test_summary = summary(tested.output)
    if test_summary != prepared.test_summary:
        raise _EndedError(
            "test", f"the tests did not end as at the start commit: {test_summary}, not {prepared.test_summary}"
        )
    case.flags += fewer_lines(count_lines(tested), prepared.test_lines)
    return overlay


def _require_own_changes(prepared: BuiltProblem, patch: Patch, overlay: Overlay) -> None:
    """Refuse a build that changes tracked files which it does not change at the start commit; new files are allowed."""
    mine = {change.path for change in patch.changes}
    also = {*prepared.overlay.files, *prepared.overlay.deleted}
    for path in (*overlay.files, *overlay.deleted):
        if path in prepared.start.tracked and path not in also and show(path) not in mine:
            raise _EndedError("build", f"the build changed {show(path)}")
