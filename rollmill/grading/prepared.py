"""Prepares a problem for grading: reads, builds and tests its start commit."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rollmill.grading.agent_tree import read_change
from rollmill.grading.clean_copy import COMMAND_ENVIRONMENT, CleanCopies, Overlay, ProblemError, difference
from rollmill.grading.patch import PatchBase
from rollmill.grading.problem import GradedProblem
from rollmill.grading.test_summary import summary
from rollmill.grading.tree import BadTreeError
from rollmill.sandboxes.sandbox import Execution, Sandbox


class BuiltProblem(NamedTuple):
    """A problem and its start commit, built and tested."""

    problem: GradedProblem
    copies: CleanCopies
    folder: str
    """The repository's root inside the sandbox."""
    allowed: list[str]
    """Patterns of files that may change, relative to the root."""
    commit: str
    start: PatchBase
    overlay: Overlay
    """The difference of the built tree from the start tree."""
    test_summary: list[str]
    test_lines: int
    """Lines that the tests print."""


def prepare(problem: GradedProblem, copies: CleanCopies, scratch: Path) -> BuiltProblem:
    """Build and test the start commit in a fresh sandbox.

    Raises `ProblemError` if that fails, since no change could be judged; `SandboxError`.
    """
    if not problem.benchmark_command and not problem.by_cases:
        raise ProblemError(
            f"{problem.instance_id} has no benchmark_command, nor inputs_command and worker_command: they say what is "
            "to be measured"
        )
    if not problem.allowed:
        raise ProblemError(f"{problem.instance_id} has neither allowed_paths nor path_in_repo: nothing may be changed")
    with copies.fresh() as sandbox:
        try:
            folder, prefix, commit, tracked, tree = copies.read_start(sandbox)
            if not commit.startswith(problem.commit_id):
                raise ProblemError(f"image {problem.image_name!r} is at commit {commit}, not {problem.commit_id}")
            start = PatchBase(tree, tracked, scratch)
            # As an agent's tree is read later: what an image lacks for that is the problem's fault, not the agent's.
            read_change(sandbox, folder, start, [], copies.change_limits)
            _require(problem, "build", run_command(sandbox, problem.build_command))
            overlay = (
                difference(start.digests, copies.read(sandbox, folder)) if problem.build_command else Overlay({}, [])
            )
        except BadTreeError as error:
            raise ProblemError(f"the work tree of image {problem.image_name!r} cannot be used: {error}") from error
        tested = run_command(sandbox, problem.test_command)
    _require(problem, "test", tested)
    test_summary = summary(tested.output)
    if problem.test_command and not test_summary:
        raise ProblemError(f"test_command of {problem.instance_id} prints nothing: it has to say how many tests passed")
    patterns = [prefix + pattern.removeprefix("./") for pattern in problem.allowed]
    return BuiltProblem(problem, copies, folder, patterns, commit, start, overlay, test_summary, count_lines(tested))


def run_command(sandbox: Sandbox, command: str) -> Execution:
    """Run a problem's command; an empty one succeeds."""
    return sandbox.execute(command, env=COMMAND_ENVIRONMENT) if command else Execution(output="", returncode=0)


def count_lines(tested: Execution) -> int:
    """Return the number of lines, not blank, that the tests printed."""
    return sum(1 for line in tested.output.splitlines() if line.strip())


def failure(execution: Execution) -> str | None:
    """Return why a command failed, in words; None if it succeeded."""
    if execution.timed_out:
        return "its time was over"
    if execution.killed_by:
        return f"it was ended by the {execution.killed_by}"
    return f"return code {execution.returncode}" if execution.returncode else None


def _require(problem: GradedProblem, phase: str, done: Execution) -> None:
    why = failure(done)
    if why:
        raise ProblemError(
            f"{phase}_command of {problem.instance_id} fails at the start commit: {why}", details=done.output[-4000:]
        )
