"""The same verdicts on a real Docker engine, whose sandboxes run as root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollmill.environments.code.checking import Case, CaseOutcome
from rollmill.environments.python_runs import SandboxedPython
from rollmill.sandboxes.docker import DockerHost
from rollmill.sandboxes.sandbox import Limits, SandboxError, SandboxSpec
from tests.environments.code.submissions import HOSTILE, RIGHT, SEARCH, SEARCHED, TRUTH, checker, judge
from tests.sandboxes.engine import import_image, shared_engine

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
IMAGE = "rollmill-test-code:1"
LIMITS = Limits(memory_mb=256, processes=48, output_bytes=100_000)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[DockerHost]:
    address = shared_engine(request.config)
    tree = tmp_path_factory.mktemp("tree")
    libraries = list(Path("/usr/lib").glob(f"{os.uname().machine}-linux-gnu/libffi.so.*"))
    if not libraries:
        pytest.skip("there is no libffi for the image's ctypes")
    for library in libraries:
        shutil.copy(library.resolve(), tree / library.name)
    import_image(address, tree, IMAGE)
    with DockerHost(docker_host=address) as started:
        yield started


@pytest.fixture(scope="module")
def docker_python(host: DockerHost) -> SandboxedPython:
    spec = SandboxSpec(image=IMAGE, limits=LIMITS, env={"LD_LIBRARY_PATH": "/workspace"}, timeout_s=20)
    return SandboxedPython(host, spec=spec)


def test_verdicts(docker_python: SandboxedPython) -> None:
    cases = [Case(RIGHT, TRUTH, secret=True), Case("def f(x): return 2", TRUTH, secret=True)]
    assert checker(docker_python).check(cases) == [CaseOutcome("passed"), CaseOutcome("wrong")]
    done = docker_python.run("import sys\nprint(list(set('abc')) == list(set('abc')), sys.stdin.read())", stdin="ä")
    assert (done.output, done.returncode) == ("True ä\n", 0)


def test_the_tests_stay_secret(docker_python: SandboxedPython) -> None:
    assert judge(docker_python, SEARCH, SEARCHED.format("=="), secret=True) == CaseOutcome("passed")
    assert judge(docker_python, "planted = 'Quetzalcoatl'\n" + SEARCH, SEARCHED.format("!="), secret=True).passed


@pytest.mark.parametrize(
    "name",
    [
        "kills its parent",
        "kills everybody",
        "stops its parent",
        "forks without end",
        "takes 10 GB bit by bit",
        "traces its parent",
        "writes into every file that it finds",
        "exits in a call",
    ],
)
def test_hostile_code_fails_and_later_code_still_passes(docker_python: SandboxedPython, name: str) -> None:
    assert not judge(docker_python, HOSTILE[name], secret=True).passed
    assert judge(docker_python, RIGHT, secret=True) == CaseOutcome("passed")


def test_a_python_that_cannot_hide_its_memory_judges_nothing(host: DockerHost) -> None:
    python = SandboxedPython(host, spec=SandboxSpec(image=IMAGE, limits=LIMITS))
    with pytest.raises(SandboxError, match=r"code cannot be judged in this sandbox: ImportError libffi\.so"):
        judge(python, RIGHT)
