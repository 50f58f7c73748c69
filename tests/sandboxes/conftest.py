from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollmill.sandboxes.bubblewrap import BubblewrapHost, BubblewrapSandbox
from rollmill.sandboxes.images import commit_tree
from rollmill.sandboxes.sandbox import Limits, SandboxSpec
from tests.sandboxes.engine import import_image, shared_engine


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one image, `small`."""
    folder = tmp_path_factory.mktemp("images")
    small = folder / "small"
    (small / "src").mkdir(parents=True)
    (small / "src" / "one.py").write_text("ONE = 1\n")
    (small / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (small / "run.sh").chmod(0o755)
    (small / ".gitignore").write_text("*.log\n")
    (small / "kept.log").write_text("kept\n")
    return folder


@pytest.fixture
def root() -> Iterator[Path]:
    """Return a folder that sandboxes' users can enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="rollmill-test-"))
    folder.chmod(0o711)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module")
def host(images: Path) -> Iterator[BubblewrapHost]:
    if not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed (scripts/debian_packages)")
    folder = Path(tempfile.mkdtemp(prefix="rollmill-test-"))
    folder.chmod(0o711)
    with BubblewrapHost(images, root=folder) as started:
        yield started
    assert list(folder.iterdir()) == []
    folder.rmdir()


@pytest.fixture
def start(host: BubblewrapHost) -> Iterator[Callable[..., BubblewrapSandbox]]:
    """Return a function that starts sandboxes of `small` with the given limits."""
    started = []

    def make(**limits: float) -> BubblewrapSandbox:
        sandbox = host.start(SandboxSpec(image="small", limits=Limits.model_validate(limits)))
        started.append(sandbox)
        return sandbox

    yield make
    for sandbox in started:
        sandbox.close()


@pytest.fixture(scope="session")
def engine(images: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    """The address of a real Docker engine with the image `engine.IMAGE`, of the tree of `small`."""
    address = shared_engine(request.config)
    tree = tmp_path_factory.mktemp("docker") / "tree"
    shutil.copytree(images / "small", tree)
    commit_tree(tree)
    import_image(address, tree)
    return address
