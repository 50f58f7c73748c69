from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from rollmill.grading.benchmark_runner import WrongBenchmarkError
from rollmill.grading.evaluation import Evaluation, GitPrecheck, SpeedupDetails
from rollmill.grading.flags import IN_ONE_PROCESS
from rollmill.grading.grader import LocalGrader
from rollmill.grading.problem import GradedProblem
from rollmill.grading.reward_schedule import DEFAULT
from rollmill.grading.speedup import PairCount
from rollmill.sandboxes.bubblewrap import BubblewrapHost, BubblewrapSandbox
from rollmill.sandboxes.sandbox import SandboxError, SandboxSpec
from tests.grading.conftest import Play
from tests.grading.repositories import C_FAST, FAST, PYTHON, write_command


@pytest.fixture(scope="module")
def fast(host: BubblewrapHost, grader: LocalGrader, problems: dict[str, GradedProblem]) -> Evaluation:
    """Grade a fast and correct change."""
    with closing(host.start(SandboxSpec(image="py"))) as sandbox:
        sandbox.execute(write_command("lib/total.py", FAST))
        return grader.grade(problems["py"], sandbox.id)


@pytest.mark.slow
def test_a_fast_and_right_change_is_a_success(fast: Evaluation) -> None:
    assert (fast.success, fast.reason, fast.phase, fast.error) == (True, None, None, None)
    assert fast.git_precheck is not None
    assert fast.git_precheck.changed_files == ["lib/total.py"]
    assert fast.git_precheck.raw_status == " M lib/total.py\n"


@pytest.mark.slow
def test_reward_follows_from_pairs_of_runs(fast: Evaluation) -> None:
    details = fast.speedup_details
    assert details is not None
    assert details.total_comparisons == 3
    assert fast.reward == DEFAULT.reward(0, details.low) >= 0.1
    assert 1 < details.low <= details.average_speedup == fast.speedup <= details.high
    assert all(pair.before_s > 0.24 for pair in details.comparisons)
    assert all(pair.after_s < pair.before_s for pair in details.comparisons)
    assert len({pair.seed for pair in details.comparisons}) == 3


@pytest.mark.slow
def test_evaluation_contains_command_output(fast: Evaluation) -> None:
    assert (fast.build_returncode, fast.test_returncode, fast.benchmark_returncode) == (0, 0, 0)
    assert "Ran 2 tests" in fast.test_output
    assert fast.benchmark_output == ""
    assert Evaluation.model_validate_json(fast.model_dump_json()) == fast


@pytest.mark.slow
def test_a_fast_c_change_is_built_once_and_measured(play: Play) -> None:
    result = play("c", write_command("total.c", C_FAST))
    assert (result.success, result.reason) == (True, None)
    assert result.build_returncode == 0
    assert result.test_output == "2 of 2 tests passed\n"


def test_no_change_gets_no_reward(play: Play) -> None:
    result = play("py", "python3 -m unittest discover; touch a.log; git commit -q --allow-empty -m x")
    assert (result.success, result.reward, result.reason, result.phase) == (False, 0.0, "no change", "git_precheck")
    assert result.git_precheck is not None
    assert (result.git_precheck.is_git, result.git_precheck.ok, result.git_precheck.raw_diff) == (True, True, "")


@pytest.mark.slow
def test_change_without_effect_gets_no_reward(play: Play) -> None:
    # An interval of 95 % misses once in twenty times, on either side: twice in a row, on the same, it does not.
    tries = [play("py", "echo '# faster' >> lib/total.py")]
    if tries[-1].success:
        tries.append(play("py", "echo '# faster' >> lib/total.py"))
    result = tries[-1]
    assert (result.success, result.reward, result.phase) == (False, 0.0, "benchmark")
    assert str(result.reason).startswith("not faster beyond noise: ") or str(result.reason).startswith("slower: ")
    assert result.speedup is not None


@pytest.mark.slow
def test_slower_change_is_reported_as_slower(play: Play) -> None:
    result = play("py", "sed -i 's/0.0002/0.0008/' lib/total.py")
    assert (result.success, result.reward) == (False, 0.0)
    assert str(result.reason).startswith("slower: 0.")


def test_a_wrong_change_fails_its_tests(play: Play) -> None:
    result = play("py", write_command("lib/total.py", "def total(numbers):\n    return 6\n"))
    assert (result.success, result.reward, result.phase) == (False, 0.0, "test")
    assert result.reason == "the tests failed: return code 1"
    assert "FAILED (failures=1)" in result.test_output
    assert result.speedup is None


def test_a_change_that_does_not_compile_fails_its_build(play: Play) -> None:
    result = play("c", "echo 'int x = ;' >> total.c")
    assert (result.success, result.reward, result.phase) == (False, 0.0, "build")
    assert result.build_returncode == 2
    assert result.reason == "the build failed: return code 2"
    assert "error: expected expression" in result.build_output


def test_commands_may_run_in_a_folder_of_the_repository(
    host: BubblewrapHost, grader: LocalGrader, problems: dict[str, GradedProblem]
) -> None:
    sandbox = host.start(SandboxSpec(image="py", cwd="/workspace/lib"))
    sandbox.execute("echo 'def total(numbers): return 6' > total.py")
    result = grader.grade(problems["within"], sandbox.id)
    sandbox.execute("touch ../total.py")
    outside = grader.grade(problems["within"], sandbox.id)
    sandbox.close()
    assert (result.phase, result.reason) == ("test", "the tests failed: return code 1")
    assert result.git_precheck is not None
    assert result.git_precheck.changed_files == ["lib/total.py"]
    assert outside.phase == "test"
    assert str(outside.reason).endswith("; 1 change is left out: total.py was added, and only lib/total.py may be")


def test_long_output_is_cut(play: Play) -> None:
    result = play("py", write_command("lib/total.py", "print('x' * 300_000 + 'the end')\nraise SystemExit(3)"))
    assert result.phase == "test"
    assert 20_000 <= len(result.test_output.encode()) < 20_200
    assert result.test_output.startswith("xxx")


def test_patch_holds_every_change_to_the_tree(play: Play, tmp_path: Path) -> None:
    result = play(
        "py",
        "echo staged > lib/staged.py; git add -A; echo more >> lib/staged.py",
        "echo committed > lib/committed.py; git add -A; git commit -qm x; git rm -q lib/__init__.py",
        "printf '\\0\\1' > 'lib/b é'; chmod +x lib/total.py; echo 'x = (' >> lib/total.py; printf x > lib/new.txt",
    )
    assert result.git_precheck is not None
    for path, text in PYTHON.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply"], cwd=tmp_path, input=result.git_precheck.raw_diff.encode(), check=True)
    assert sorted(file.name for file in (tmp_path / "lib").iterdir()) == sorted(
        ["staged.py", "committed.py", "b é", "total.py", "new.txt"]
    )
    assert (tmp_path / "lib/staged.py").read_text() == "staged\nmore\n"
    assert (tmp_path / "lib/b é").read_bytes() == b"\0\1"
    assert os.access(tmp_path / "lib/total.py", os.X_OK)
    assert "?? lib/staged.py\n" in result.git_precheck.raw_status


def failed(result: Evaluation) -> str | None:
    assert (result.success, result.reward) == (None, None)
    assert result.error is not None
    assert "\n" not in result.error
    return result.error_type


@pytest.mark.parametrize(
    ("instance_id", "message"),
    [
        ("untested", "test_command of untested fails at the start commit: return code 3"),
        ("unmeasured", "has no benchmark_command"),
        ("misdated", "not 0000"),
        ("silent", "prints nothing"),
    ],
)
def test_ungradable_problem_is_an_error(
    host: BubblewrapHost, grader: LocalGrader, problems: dict[str, GradedProblem], instance_id: str, message: str
) -> None:
    sandbox = host.start(SandboxSpec(image="py"))
    result = grader.grade(problems[instance_id], sandbox.id)
    sandbox.close()
    assert failed(result) == "problem"
    assert message in str(result.error)


@pytest.mark.slow
def test_unreproducible_outputs_are_an_error_not_a_failure(play: Play) -> None:
    result = play("flaky", "echo '# new' >> lib/total.py")
    assert failed(result) == "problem"
    assert "worker_command of flaky gave two outputs for one case at the start commit: case 1 of" in str(result.error)


@pytest.mark.slow
def test_unreproducible_benchmark_is_an_error_not_a_failure(play: Play) -> None:
    result = play("flaky_benchmark", "echo '# new' >> lib/total.py")
    assert failed(result) == "problem"
    assert "gave two results for one BENCH_SEED at the start commit" in str(result.error)


@pytest.mark.slow
def test_a_benchmark_in_one_process_has_a_flag(play: Play) -> None:
    result = play("old", write_command("lib/total.py", FAST))
    assert (result.success, result.reward) == (True, 1.0)
    assert result.flags == [IN_ONE_PROCESS]


@pytest.mark.slow
def test_order_of_pairs_does_not_follow_from_the_change(
    host: BubblewrapHost, problems: dict[str, GradedProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []

    def compared(measure: object, pairs: PairCount, order: random.Random, charge_s: object) -> SpeedupDetails:
        orders.append([order.random() for _ in range(8)])
        raise WrongBenchmarkError("enough")

    monkeypatch.setattr("rollmill.grading.grader.compare", compared)
    grader = LocalGrader(host, edge_seeds=0)
    with closing(host.start(SandboxSpec(image="py"))) as sandbox:
        sandbox.execute(write_command("lib/total.py", FAST))
        for _ in range(2):
            grader.grade(problems["py"], sandbox.id)
    assert orders[0] != orders[1]


def test_missing_sandbox_is_an_error(
    host: BubblewrapHost, grader: LocalGrader, problems: dict[str, GradedProblem]
) -> None:
    assert failed(grader.grade(problems["py"], "nobody")) == "unknown_sandbox"
    sandbox = host.start(SandboxSpec(image="py"))
    result = grader.grade(problems["imageless"], sandbox.id)
    sandbox.close()
    assert failed(result) == "input"
    assert "nowhere" in str(result.error)
    assert failed(grader.grade(problems["py"], sandbox.id)) == "unknown_sandbox"


def test_oversized_work_tree_fails_the_attempt(host: BubblewrapHost, problems: dict[str, GradedProblem]) -> None:
    grader = LocalGrader(host, most_bytes=100_000)
    sandbox = host.start(SandboxSpec(image="py"))
    sandbox.execute("head -c 300000 /dev/zero > lib/zeros")
    result = grader.grade(problems["py"], sandbox.id)
    sandbox.close()
    assert (result.success, result.reward, result.phase) == (False, 0.0, "git_precheck")
    assert "the work tree cannot be judged" in str(result.reason)
    assert result.git_precheck == GitPrecheck(is_git=True, ok=False, reason=result.reason)


def test_a_host_that_fails_in_the_middle_gives_no_verdict(
    host: BubblewrapHost, problems: dict[str, GradedProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    grader = LocalGrader(host)
    start = host.start
    sandbox = start(SandboxSpec(image="py"))
    sandbox.execute("echo '# new' >> lib/total.py")
    for fails_at, noted in ((1, False), (2, True), (3, True)):
        left = [fails_at]

        def failing(spec: SandboxSpec, left: list[int] = left) -> BubblewrapSandbox:
            left[0] -= 1
            if left[0] == 0:
                raise SandboxError("the host is gone", type_="start")
            return start(spec)

        monkeypatch.setattr(host, "start", failing)
        result = grader.grade(problems["py"], sandbox.id)
        assert failed(result) == "start"
        assert result.error == "the host is gone"
        assert (result.git_precheck is not None) == noted
    sandbox.close()


def test_a_sandbox_that_ends_in_the_middle_gives_no_verdict(
    host: BubblewrapHost, problems: dict[str, GradedProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    grader = LocalGrader(host)
    start = host.start

    def started(spec: SandboxSpec) -> BubblewrapSandbox:
        fresh = start(spec)
        threading.Timer(0.2, fresh.close).start()
        return fresh

    with closing(start(SandboxSpec(image="py"))) as sandbox:
        # The start commit alone takes longer to answer the cases than its sandbox lives.
        sandbox.execute("echo '# new' >> lib/total.py")
        monkeypatch.setattr(host, "start", started)
        result = grader.grade(problems["py"], sandbox.id)
    assert failed(result)


def test_changes_are_graded_concurrently(host: BubblewrapHost, problems: dict[str, GradedProblem]) -> None:
    grader = LocalGrader(host)
    sandboxes = [host.start(SandboxSpec(image="py")) for _ in range(4)]
    for number, sandbox in enumerate(sandboxes):
        sandbox.execute(f"echo {number} > {number}.txt")
    with ThreadPoolExecutor(4) as threads:
        result = list(threads.map(lambda sandbox: grader.grade(problems["py"], sandbox.id), sandboxes))
    for number, evaluation in enumerate(result):
        sandboxes[number].close()
        assert evaluation.git_precheck is not None
        assert [change.path for change in evaluation.git_precheck.ignored_changes] == [f"{number}.txt"]
        assert str(evaluation.reason).startswith(f"no change; 1 change is left out: {number}.txt was added")


def test_a_grader_leaves_no_files(host: BubblewrapHost, problems: dict[str, GradedProblem]) -> None:
    grader = LocalGrader(host)
    scratch = grader._scratch
    sandbox = host.start(SandboxSpec(image="py"))
    grader.grade(problems["py"], sandbox.id)
    sandbox.close()
    assert any(scratch.iterdir())
    del grader
    gc.collect()
    assert not scratch.exists()


def test_next_grader_removes_files_of_a_killed_one(host: BubblewrapHost) -> None:
    script = (
        "import os; from rollmill.grading.grader import LocalGrader; grader = LocalGrader(None);"
        "(grader._scratch / 'left').touch(); print(grader._scratch, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -9
    left = Path(done.stdout.strip())
    assert (left / "left").exists()
    LocalGrader(host)
    assert not left.exists()


def test_sandboxes_that_cannot_answer_cases_are_refused(
    host: BubblewrapHost, problems: dict[str, GradedProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    grader = LocalGrader(host)
    monkeypatch.delattr(BubblewrapSandbox, "answer_cases")
    with closing(host.start(SandboxSpec(image="py"))) as sandbox:
        result = grader.grade(problems["py"], sandbox.id)
        grader.check(problems["old"], sandbox)
    assert failed(result) == "input"
    assert str(result.error).startswith("sandboxes of the kind BubblewrapHost have no answer_cases, which py needs")
