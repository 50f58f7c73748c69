from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollmill.grading.evaluation import Evaluation
from rollmill.grading.grader import LocalGrader
from rollmill.grading.problem import GradedProblem
from rollmill.grading.speedup import PairCount
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.sandbox import SandboxSpec
from tests.grading.repositories import FLAKY, OLD, PROBLEMS, PYTHON, C

Play = Callable[..., Evaluation]


def write(images: Path, name: str, files: dict[str, str]) -> None:
    for path, text in files.items():
        file = images / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, files in {"py": PYTHON, "c": C, "flaky": FLAKY, "old": OLD}.items():
        write(folder, name, files)
    return folder


@pytest.fixture(scope="session")
def host(images: Path) -> Iterator[BubblewrapHost]:
    if not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed (scripts/debian_packages)")
    folder = Path(tempfile.mkdtemp(prefix="rollmill-test-"))
    folder.chmod(0o711)
    with BubblewrapHost(images, root=folder) as started:
        yield started
        assert not started._sandboxes, "grading leaves no sandbox behind"
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="session")
def problems() -> dict[str, GradedProblem]:
    return {row["instance_id"]: GradedProblem.model_validate(row) for row in PROBLEMS}


@pytest.fixture(scope="session")
def grader(host: BubblewrapHost) -> LocalGrader:
    """Return the smallest number of pairs."""
    return LocalGrader(host, pairs=PairCount(least=3, most=3), edge_seeds=1)


@pytest.fixture
def play(host: BubblewrapHost, grader: LocalGrader, problems: dict[str, GradedProblem]) -> Iterator[Play]:
    """Run an agent's commands in a sandbox of the problem, and grade the work tree."""
    started = []

    def graded(instance_id: str, *commands: str) -> Evaluation:
        sandbox = host.start(SandboxSpec(image=problems[instance_id].image_name))
        started.append(sandbox)
        for command in commands:
            sandbox.execute(command)
        return grader.grade(problems[instance_id], sandbox.id)

    yield graded
    for sandbox in started:
        sandbox.close()
