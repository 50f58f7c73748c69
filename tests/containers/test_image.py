"""The image: its last stage is built on a real engine and run, with a few packages instead of the full installation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.environments import build, builder, make_environments
from tests.containers.reading import ROOT, services
from tests.sandboxes.engine import shared_engine

pytestmark = [pytest.mark.docker, pytest.mark.slow]

IMAGE = "rollmill:test"
VOLUME = "--volume=rollmill-test:/data"
SENT = ("blocks", "containers", "deployments", "examples", "flows", "requirements", "rollmill", "scripts", "tasks")
KEPT_OUT = (".env", "containers/.env", ".git/config", "models/weights", "reject_sampling_results/row", "flows/.env")
SANDBOX = """
from pathlib import Path
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.sandbox import SandboxSpec
image = Path("/tmp/images/small")
image.mkdir(parents=True)
(image / "a.txt").write_text("from the image\\n")
with BubblewrapHost(image.parent, packages=()) as host:
    print(host.start(SandboxSpec(image="small")).execute("cat a.txt; id -un; ls /data 2>&1; pwd").output)
"""


class Engine:
    """A Docker engine, called by a client that can build."""

    def __init__(self, docker: str, address: str) -> None:
        self.docker, self.address = docker, address

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [self.docker, "-H", self.address, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check)

    def container(self, *security: str) -> str:
        """Start an idle container without network and capabilities; return its id."""
        options = [
            "--detach",
            "--network=none",
            "--cap-drop=ALL",
            VOLUME,
            *(f"--security-opt={each}" for each in security),
        ]
        return self("run", *options, IMAGE, "sleep", "100000").stdout.strip()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout with files that must not get into an image."""
    folder = tmp_path_factory.mktemp("context") / "rollmill"
    folder.mkdir()
    for name in SENT:
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    for name in ("prefect.yaml", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder)
    for name in KEPT_OUT:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("canary-of-the-context")
    return folder


@pytest.fixture(scope="module")
def engine(context: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Engine:
    """Return an engine that has built the image."""
    address = shared_engine(request.config)
    if Path("/usr/bin/python3").resolve().name != f"python{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip("the environment's Python is another than the system's, of which the image is made")
    try:
        docker = builder()
    except RuntimeError as error:
        pytest.skip(f"no image can be built here: {error}")
    make_environments(docker, address, tmp_path_factory.mktemp("environments"), "environments-test:latest")
    recipe = context / "containers" / "Dockerfile"
    build(docker, address, "--file", recipe, "--build-arg", "KIND=test", "--tag", IMAGE, context)
    return Engine(docker, address)


@pytest.fixture(scope="module")
def worker(engine: Engine) -> Iterator[list[str]]:
    """Yield the arguments that run a command in a container with the permissions of the compose file's worker."""
    container = engine.container(*services()["worker-cpu"]["security_opt"])
    yield ["exec", container, "/usr/bin/tini", "--"]
    engine("rm", "--force", container)


@pytest.fixture
def unpermitted(engine: Engine) -> Iterator[str]:
    """Yield a container with default permissions. Its test must run first: every container copies the image."""
    container = engine.container("no-new-privileges:true")
    yield container
    engine("rm", "--force", container)


def test_unpermitted_container_refuses_sandboxes_and_stops_by_sigterm(engine, unpermitted):
    refused = engine("exec", unpermitted, "python", "-c", SANDBOX, check=False)
    assert refused.returncode == 1
    assert "bubblewrap cannot make a sandbox here" in refused.stderr
    engine("stop", "--time=120", unpermitted)
    assert engine("inspect", "--format={{.State.ExitCode}}", unpermitted).stdout.strip() == "143"


def test_a_flow_answers_to_a_user_without_rights(engine, worker):
    assert "--num_rollout" in engine(*worker, "python", "-m", "flows.reject_sampling", "--help").stdout
    who = "id -u; id -g; pwd; grep CapEff /proc/self/status; command -v python; cat /proc/1/comm"
    none = "CapEff:\t0000000000000000"
    lines = engine(*worker, "sh", "-c", who).stdout.splitlines()
    assert lines == ["1000", "1000", "/opt/rollmill", none, "/opt/rollmill/.venv/bin/python", "tini"]


def test_image_holds_only_code_from_the_build_context(engine, worker):
    assert engine(*worker, "grep", "-rl", "canary-of-the-context", "/opt/rollmill", "/data", check=False).stdout == ""
    names = set(engine(*worker, "ls", "-A").stdout.split())
    assert {"prefect.yaml", *SENT} <= names
    assert not names & {".git", ".env", "tests"}
    assert engine(*worker, "ls", "-A", "containers").stdout.split() == ["entrypoint"]


def test_runs_write_to_the_volume_and_nowhere_else(engine, worker):
    engine(*worker, "sh", "-c", "mkdir reject_sampling_results/a && echo kept > reject_sampling_results/a/row")
    assert engine(*worker, "cat", "/data/reject_sampling_results/a/row").stdout == "kept\n"
    for path in ("lost", "flows/__init__.py", ".venv/lost", "/etc/lost"):
        refused = engine(*worker, "sh", "-c", f"echo lost >> {path}", check=False)
        assert refused.returncode != 0, path
        assert "Permission denied" in refused.stderr, path


def test_sandboxes_start_with_what_the_compose_file_permits(engine, worker):
    lines = engine(*worker, "python", "-c", SANDBOX).stdout.splitlines()
    assert lines[0] == "from the image"
    assert lines[1] == "sandbox"
    assert "No such file" in lines[2]
    assert lines[3] == "/workspace"
