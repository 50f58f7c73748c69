from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollmill.errors import InputError
from rollmill.grading.evaluation import Evaluation
from rollmill.grading.grader import LocalGrader
from rollmill.grading.pack import Pack, Proof, prove
from rollmill.grading.speedup import PairCount
from rollmill.sandboxes.bubblewrap import BubblewrapHost

FOLDER = Path(__file__).parents[2] / "examples/performance_problems"
PACK = Pack(FOLDER)


class TestTheRepositorysPack:
    def test_has_enough_of_both_languages(self) -> None:
        kinds = [Path(problem.path_in_repo).suffix for problem in PACK.problems.values()]
        assert kinds.count(".py") >= 8
        assert kinds.count(".c") >= 4

    @pytest.mark.parametrize("instance_id", PACK.problems)
    def test_names_files_that_are_there(self, instance_id: str) -> None:
        problem = PACK.problems[instance_id]
        image = PACK.images / problem.image_name
        row = problem.model_dump()
        for field in ("path_in_repo", "test_file_path", "benchmark_file_path"):
            assert (image / row[field]).is_file(), field
        assert problem.path_in_repo not in (row["test_file_path"], row["benchmark_file_path"])
        assert PACK.solution(instance_id, "good") != PACK.solution(instance_id, "wrong")
        assert not list(image.rglob("*.patch"))

    def test_commits_are_those_of_the_images(self, tmp_path: Path) -> None:
        copied = shutil.copytree(FOLDER, tmp_path / "pack")
        assert Pack(copied).write_commits() == 0
        assert (copied / "dataset.json").read_bytes() == PACK.dataset.read_bytes()


def one_problem(folder: Path, instance_id: str) -> Path:
    """A pack of that problem alone."""
    rows = [row for row in json.loads(PACK.dataset.read_bytes()) if row["instance_id"] == instance_id]
    image = rows[0]["image_name"]
    shutil.copytree(PACK.images / image, folder / "images" / image)
    shutil.copytree(FOLDER / "solutions" / instance_id, folder / "solutions" / instance_id)
    (folder / "dataset.json").write_text(json.dumps(rows))
    return folder


def test_a_changed_image_has_another_commit(tmp_path: Path) -> None:
    pack = Pack(one_problem(tmp_path, "spanset__merge"))
    (pack.images / "spanset/README.md").write_text("another\n")
    assert pack.write_commits() == 1
    again = Pack(tmp_path)
    assert again.problems["spanset__merge"].commit_id != PACK.problems["spanset__merge"].commit_id
    assert again.problems["spanset__merge"].model_dump()["test_file_path"] == "tests/test_union.py"
    assert again.write_commits() == 0


def test_missing_solutions_and_images_are_reported(tmp_path: Path) -> None:
    pack = Pack(one_problem(tmp_path, "spanset__merge"))
    (tmp_path / "solutions/spanset__merge/wrong.patch").unlink()
    with pytest.raises(InputError, match=r"wrong\.patch is missing"):
        pack.solution("spanset__merge", "wrong")
    shutil.rmtree(tmp_path / "images/spanset")
    with pytest.raises(InputError, match="spanset"):
        pack.write_commits()


UNCHANGED = Evaluation(instance_id="a", success=False, reward=0.0, reason="no change", phase="git_precheck")
GOOD = Evaluation(instance_id="a", success=True, reward=1.0, speedup=3.0)
WRONG = Evaluation(instance_id="a", success=False, reward=0.0, reason="the tests failed", phase="test")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"unchanged": GOOD}, "unchanged: reward 1.0"),
        ({"unchanged": WRONG}, "unchanged: reward 0.0, the tests failed"),
        ({"good": WRONG}, "good: no success: the tests failed"),
        ({"good": GOOD.model_copy(update={"speedup": 1.4})}, "good: speedup 1.4"),
        ({"good": GOOD.model_copy(update={"reward": 0.1})}, "reward 0.1"),
        ({"wrong": GOOD}, "wrong: success True"),
        ({"wrong": WRONG.model_copy(update={"phase": "build"})}, "caught by neither"),
        ({"wrong": WRONG.model_copy(update={"phase": "benchmark", "speedup": 1.0})}, "caught by neither"),
        ({"good": GOOD.model_copy(update={"error": "no host", "error_type": "sandbox"})}, "good: sandbox: no host"),
    ],
)
def test_proof_faults_follow_from_the_grades(changed: dict[str, Evaluation], fault: str | None) -> None:
    proof = Proof("a", **{"unchanged": UNCHANGED, "good": GOOD, "wrong": WRONG, **changed})
    if fault is None:
        assert proof.faults == []
        assert proof.row()["sound"] == "yes"
    else:
        assert len(proof.faults) == 1
        assert fault in proof.faults[0]
        assert proof.row()["sound"] == "no"


FEW = PairCount(least=3, most=6)


@pytest.fixture(scope="module")
def host() -> Iterator[BubblewrapHost]:
    with BubblewrapHost(PACK.images, packages=()) as host:
        yield host


@pytest.fixture(scope="module")
def grader(host: BubblewrapHost) -> LocalGrader:
    return LocalGrader(host, pairs=FEW)


@pytest.mark.slow
@pytest.mark.parametrize("instance_id", PACK.problems)
def test_only_the_good_patch_earns_a_reward(instance_id: str, host: BubblewrapHost, grader: LocalGrader) -> None:
    proof = prove(PACK, host, grader, instance_id)
    assert proof.faults == [], proof


@pytest.mark.slow
def test_pack_with_bad_solutions_fails_the_check(tmp_path: Path) -> None:
    pack = Pack(one_problem(tmp_path, "spanset__merge"))
    patches = tmp_path / "solutions/spanset__merge"
    (patches / "good.patch").rename(patches / "kept")
    (patches / "wrong.patch").rename(patches / "good.patch")
    (patches / "kept").rename(patches / "wrong.patch")
    with BubblewrapHost(pack.images, packages=()) as host:
        grader = LocalGrader(host, pairs=FEW)
        faults = prove(pack, host, grader, "spanset__merge").faults
        assert [fault.partition(":")[0] for fault in faults] == ["good", "wrong"]
        (patches / "good.patch").write_text("no patch\n")
        with pytest.raises(InputError, match="a patch of spanset__merge does not apply"):
            prove(pack, host, grader, "spanset__merge")
