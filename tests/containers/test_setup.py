"""`scripts/setup` installs the right build at the right time; a fake uv only records its arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.containers.reading import ROOT

UV = """#!/bin/sh
echo "$UV_FIND_LINKS|$*" >> asked
[ ! -e fails ] || exit 1
case "$1" in venv) mkdir -p .venv-vllm/bin && cp .venv/bin/python .venv-vllm/bin/ ;; esac
"""
PROGRAM = "#!/bin/sh\nexit 0\n"


class Project:
    """A project folder to set up, on a simulated machine of any kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("setup", "package_source"):
            (folder / "scripts").mkdir(exist_ok=True)
            shutil.copy2(ROOT / "scripts" / name, folder / "scripts" / name)
        shutil.copytree(ROOT / "requirements", folder / "requirements")
        shutil.copy2(ROOT / "pyproject.toml", folder)
        self._program("scripts/debian_packages", '#!/bin/sh\necho "$1" >> debian\n')
        self._program(".venv/bin/uv", UV)
        self._program(".venv/bin/python", PROGRAM)

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def set_up(self, hardware: str, *, fails: bool = False, **environment: str) -> tuple[list[str], list[str]]:
        """Run `make setup` on a machine of a kind; return its output and uv's synchronized requirements."""
        self._program("scripts/device_kind", f"#!/bin/sh\necho {hardware}\n")
        for name in ("asked", "debian", "fails"):
            (self.folder / name).unlink(missing_ok=True)
        if fails:
            (self.folder / "fails").touch()
        variables = {name: value for name, value in os.environ.items() if name != "ROLLMILL_KIND"}
        variables |= {"UV_FIND_LINKS": "/wheels", **environment}
        done = subprocess.run(
            ["scripts/setup"], cwd=self.folder, env=variables, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == fails, done.stderr
        requests_log = self.folder / "asked"
        calls = requests_log.read_text().splitlines() if requests_log.exists() else []
        return done.stdout.splitlines(), [call for call in calls if "pip sync" in call]

    def debian(self) -> list[str]:
        return (self.folder / "debian").read_text().split()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_vllm_build_is_installed_once(project: Project, kind: str) -> None:
    lines, synced = project.set_up(kind)
    assert lines == [
        f"setup: the project, in .venv (requirements/training-{kind}.txt)",
        f"setup: the inference server, in .venv-vllm (requirements/vllm-{kind}.txt)",
        "setup: done",
    ]
    assert [call.split()[-1] for call in synced] == [f"requirements/{name}-{kind}.txt" for name in ("training", "vllm")]
    assert {call.split("|")[0] for call in synced} == {"/wheels" if kind == "cpu" else ""}
    assert ("requirements/debian-gpu.txt" in project.debian()) == (kind == "gpu")
    assert project.set_up(kind) == (["setup: done"], [])


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        ("cpu", "gpu", "there is an NVIDIA GPU now: the build for GPUs takes the place of that for CPUs in .venv"),
        ("gpu", "cpu", "there is no NVIDIA GPU any more: the build for CPUs takes the place of that for GPUs in .venv"),
    ],
)
def test_changed_driver_installs_the_other_vllm_build(project: Project, before: str, now: str, what: str) -> None:
    project.set_up(before)
    lines, synced = project.set_up(now)
    assert [line for line in lines if "takes the place" in line] == [f"setup: {what}", f"setup: {what}-vllm"]
    assert [call.split()[-1] for call in synced] == [f"requirements/{name}-{now}.txt" for name in ("training", "vllm")]
    # uv would keep torch 2.13.0+cpu where 2.13.0 is asked for
    assert all("--reinstall-package torch" in call for call in synced)
    assert project.set_up(now) == (["setup: done"], [])


def test_chosen_kind_wins_and_is_reported(project: Project) -> None:
    project.set_up("gpu")
    lines, synced = project.set_up("gpu", ROLLMILL_KIND="cpu")
    assert lines[0] == "setup: ROLLMILL_KIND=cpu: the cpu build takes the place of the gpu build in .venv"
    assert len(synced) == 2
    assert project.set_up("gpu", ROLLMILL_KIND="cpu") == (["setup: done"], [])


def test_amd_gpu_gets_a_message_and_the_cpu_build(project: Project) -> None:
    lines, synced = project.set_up("amd")
    assert [line for line in lines if "AMD" in line] == [lines[0]]
    assert "--base_url" in lines[0]
    assert "ROLLMILL_KIND=cpu" in lines[0]
    assert [call.split()[-1] for call in synced] == ["requirements/training-cpu.txt", "requirements/vllm-cpu.txt"]


def test_changed_lock_is_installed(project: Project) -> None:
    project.set_up("cpu")
    lock = project.folder / "requirements/vllm-cpu.txt"
    lock.write_text(lock.read_text() + "six==1.17.0\n")
    lines, synced = project.set_up("cpu")
    assert lines[0] == "setup: the inference server, in .venv-vllm (requirements/vllm-cpu.txt)"
    assert ["reinstall" in call for call in synced] == [False]


def test_failed_installation_is_repeated(project: Project) -> None:
    project.set_up("cpu")
    project.set_up("gpu", fails=True)
    _, synced = project.set_up("cpu")
    assert any("training-cpu.txt" in call and "--reinstall-package torch" in call for call in synced)


def test_unknown_kind_is_refused(project: Project) -> None:
    lines, _ = project.set_up("cpu", fails=True, ROLLMILL_KIND="rocm")
    assert lines == ["setup: ROLLMILL_KIND=rocm: give cpu or gpu"]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ([], "cpu"),
        (["nvidiactl"], "gpu"),
        (["nvidia3"], "gpu"),
        (["dxg", "wsl/libcuda.so.1"], "gpu"),
        (["dxg", "wsl/nvidia-smi"], "gpu"),
        (["dxg"], "cpu"),
        (["wsl/libcuda.so.1"], "cpu"),
        (["nvidia-uvm", "nvidia-caps"], "cpu"),
        (["kfd"], "amd"),
        (["kfd", "nvidiactl"], "gpu"),
    ],
)
def test_kind_is_detected_from_device_files(tmp_path: Path, files: list[str], kind: str) -> None:
    (tmp_path / "wsl").mkdir()
    for name in files:
        (tmp_path / name).touch(mode=0o755)
    command = [ROOT / "scripts" / "device_kind", tmp_path, tmp_path / "wsl"]
    bare = {"PATH": "/usr/bin:/bin"}
    assert subprocess.run(command, capture_output=True, text=True, check=True, env=bare).stdout == f"{kind}\n"
