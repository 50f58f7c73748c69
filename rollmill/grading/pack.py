"""A folder of graded problems with known solutions, and the check that rewards are as expected for them.

FOLDER/dataset.json                             the problems
FOLDER/images/IMAGE/...                         the repository that agents of a problem see
FOLDER/solutions/INSTANCE/{good,wrong}.patch    for `git apply`; no agent and no image has them
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from rollmill.config.command_line import parse_command, report_errors
from rollmill.config.parameter import parameter
from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write_json
from rollmill.files.confined import ConfinedFileError, read_confined
from rollmill.files.rows import read_json
from rollmill.grading.case_proof import CaseProof, prove_cases
from rollmill.grading.evaluation import Evaluation, Grader
from rollmill.grading.grader import LocalGrader
from rollmill.grading.problem import GradedProblem
from rollmill.grading.problems import read_graded_problems
from rollmill.grading.reward_schedule import DEFAULT
from rollmill.grading.speedup import PairCount
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.files import write_file
from rollmill.sandboxes.images import image_commit, image_folder
from rollmill.sandboxes.sandbox import SandboxHost, SandboxSpec
from rollmill.terminal.text_table import aligned

PROG = "python -m rollmill.grading.pack"
LEAST_SPEEDUP = 1.5
"""Of a known-good patch."""

_LARGEST_PATCH = 64 << 20
_PATCH = "/tmp/solution.patch"  # noqa: S108


class Pack:
    """A pack's folder; `problems` are those of its dataset. Raises `InputError` if that cannot be read."""

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        self.dataset = folder / "dataset.json"
        self.images = folder / "images"
        self.problems = read_graded_problems(str(self.dataset))
        self._solutions = folder / "solutions"

    def solution(self, instance_id: str, kind: str) -> bytes:
        """Read the `good` or the `wrong` patch of a problem. Raises `InputError` if there is none."""
        name = f"{instance_id}/{kind}.patch"
        try:
            return read_confined(name, [self._solutions], limit=_LARGEST_PATCH)
        except ConfinedFileError as error:
            path = self._solutions / name
            raise InputError(
                f"{path} is missing: every problem has a good and a wrong solution ({error.reason})"
            ) from None

    def write_commits(self) -> int:
        """Set `commit_id` of every row to that of its image; return how many changed. Raises `InputError`."""
        rows = [row for _, row in read_json(str(self.dataset)) if isinstance(row, dict)]
        changed = 0
        for row in rows:
            with TemporaryDirectory(prefix="rollmill-pack-") as scratch:
                commit = image_commit(image_folder(self.images, row["image_name"]), Path(scratch) / "tree")
            if row.get("commit_id") != commit:
                row["commit_id"] = commit
                changed += 1
        atomic_write_json(self.dataset, rows)
        return changed


class Proof(NamedTuple):
    """The evaluations of one problem: unchanged, with the good patch, with the wrong one; and its cases, if it has any.

    The wrong patch of a problem with cases is graded without the tests, since these can be deceived.
    """

    instance_id: str
    unchanged: Evaluation
    good: Evaluation
    wrong: Evaluation
    cases: CaseProof | None = None

    @property
    def faults(self) -> list[str]:
        """Evaluations that are not as required, in words."""
        faults = [
            f"{name}: {evaluation.error_type}: {evaluation.error}"
            for name, evaluation in (("unchanged", self.unchanged), ("good", self.good), ("wrong", self.wrong))
            if evaluation.error
        ]
        if faults:
            return faults
        if self.cases:
            faults += self.cases.faults
        if (self.unchanged.success, self.unchanged.reward, self.unchanged.reason) != (False, 0.0, "no change"):
            faults.append(f"unchanged: reward {self.unchanged.reward}, {self.unchanged.reason}")
        good = self.good
        if not good.success:
            faults.append(f"good: no success: {good.reason}")
        elif (good.speedup or 0) < LEAST_SPEEDUP or (good.reward or 0) <= DEFAULT.steps[0].reward:
            faults.append(f"good: speedup {good.speedup}, reward {good.reward}")
        if self.wrong.success or self.wrong.reward != 0.0:
            faults.append(f"wrong: success {self.wrong.success}, reward {self.wrong.reward}")
        elif self.wrong.phase not in ("test", "benchmark") or self.wrong.speedup is not None:
            faults.append(f"wrong: caught by neither tests nor outputs: {self.wrong.phase}: {self.wrong.reason}")
        return faults

    @property
    def _caught_by(self) -> str:
        if self.cases and self.wrong.phase == "test":
            return "edge cases"
        return self.wrong.phase or "-"

    def row(self) -> dict[str, str]:
        """Return the row of a table of proofs."""
        details = self.good.speedup_details
        interval = f"{details.low:.1f}-{details.high:.1f}" if details else "-"
        return {
            "problem": self.instance_id,
            "unchanged": _shown(self.unchanged.reward),
            "good": _shown(self.good.reward),
            "speedup": _shown(self.good.speedup),
            "95%": interval,
            "wrong": _shown(self.wrong.reward),
            "caught by": self._caught_by,
            "cases": f"{self.cases.edge_cases} + {self.cases.speed_cases}" if self.cases else "-",
            "start": f"{self.cases.timed_s:.2f} s" if self.cases else "-",
            "untimed": f"{self.cases.untimed_s / max(self.cases.timed_s, 1e-9):.0%}" if self.cases else "-",
            "sound": "no" if self.faults else "yes",
        }


def prove(pack: Pack, host: SandboxHost, grader: Grader, instance_id: str) -> Proof:
    """Grade the start, the good and the wrong patch, each in a fresh sandbox.

    Raises `InputError` for a patch that is missing or does not apply, `SandboxError`.

    Args:
        pack: Has the problem and its patches.
        host: Starts the sandboxes.
        grader: Grades them.
        instance_id: The problem.
    """
    problem = pack.problems[instance_id]

    def grade(problem: GradedProblem, patch: bytes | None) -> Evaluation:
        with closing(host.start(SandboxSpec(image=problem.image_name, cwd=problem.workdir))) as sandbox:
            if patch is not None:
                write_file(sandbox, _PATCH, patch)
                applied = sandbox.execute(f"git apply {_PATCH}")
                if applied.returncode:
                    raise InputError(f"a patch of {instance_id} does not apply: {applied.output}")
            return grader.grade(problem, sandbox.id)

    by_outputs = problem.model_copy(update={"test_command": ""}) if problem.by_cases else problem
    return Proof(
        instance_id,
        unchanged=grade(problem, None),
        good=grade(problem, pack.solution(instance_id, "good")),
        wrong=grade(by_outputs, pack.solution(instance_id, "wrong")),
        cases=prove_cases(problem, host) if problem.by_cases else None,
    )


def prove_all(pack: Pack, instances: Collection[str], pairs: PairCount) -> Iterator[Proof]:
    """Yield the proofs of these problems, or of all if none is named, one after the other, on bubblewrap."""
    with BubblewrapHost(pack.images, packages=()) as host:
        grader = LocalGrader(host, pairs=pairs)
        for instance_id in instances or pack.problems:
            yield prove(pack, host, grader, instance_id)


class _Commits(BaseModel):
    """Writes the commits that sandboxes of the images start from into the dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pack: Path = parameter(Path("examples/performance_problems"), "Pack", "Pack", "Folder of the pack.", metavar="PATH")


class _Check(_Commits):
    """Proves that problems are sound: the start scores 0, the good patch high, the wrong one 0."""

    instance: list[str] = parameter([], "Pack", "Problems", "Only these problems.", metavar="ID")
    least_pairs: int = parameter(5, "Measuring", "Pairs", "Pairs of runs at least.", ge=3)
    most_pairs: int = parameter(15, "Measuring", "Most pairs", "Pairs of runs at most.", ge=3)


def _check(parameters: _Check) -> None:
    pack = Pack(parameters.pack)
    for name in parameters.instance:
        if name not in pack.problems:
            raise InputError(f"no problem {name!r} in {pack.dataset}: there are {', '.join(pack.problems)}")
    if parameters.most_pairs < parameters.least_pairs:
        raise InputError(f"--most_pairs {parameters.most_pairs} is less than --least_pairs {parameters.least_pairs}")
    pairs = PairCount(least=parameters.least_pairs, most=parameters.most_pairs)
    proofs = []
    for proof in prove_all(pack, parameters.instance, pairs):
        sys.stderr.write(f"{proof.instance_id}: {'; '.join(proof.faults) or 'sound'}\n")
        proofs.append(proof)
    rows = [proof.row() for proof in proofs]
    sys.stdout.write("\n".join(aligned(list(rows[0]), rows)) + "\n")
    unsound = [proof.instance_id for proof in proofs if proof.faults]
    if unsound:
        raise InputError(f"{len(unsound)} of {len(proofs)} problems are not sound: {', '.join(unsound)}")


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def main() -> None:
    """Run the command."""
    parameters = parse_command(
        {"commits": _Commits, "check": _Check},
        prog=PROG,
        description="Keeps a pack of graded problems sound.",
        examples=f"  {PROG} commits\n  {PROG} check --instance spanset__merge",
    )
    if isinstance(parameters, _Check):
        _check(parameters)
    elif isinstance(parameters, _Commits):
        sys.stdout.write(f"{Pack(parameters.pack).write_commits()} commits changed\n")


if __name__ == "__main__":
    with report_errors(PROG):
        main()
