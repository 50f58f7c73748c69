"""Detection of GPUs, and messages where torch cannot use them. The torch is the real one, a build for CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rollmill.errors import InputError
from rollmill.inference import devices
from rollmill.inference.devices import TorchVerdict, choose_device, driver_version, wants_cpu
from tests.gpus import OPEN, PROPRIETARY, FakeMachine

OLD = (
    "The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver by downloading "
    "and installing a new version"
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return FakeMachine(tmp_path / "machine", monkeypatch)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch):
    """Makes torch a build for CUDA 13.0 that returns given values, or runs kernels on the CPU."""

    def make(why: str | None = None, *, warned: bool = False, kernel: str | None = None) -> None:
        def available() -> bool:
            return why is None

        def init() -> None:
            if why and not warned:
                raise RuntimeError(f"{why}\nmore of it")

        def ones(*_: int, device: str) -> object:
            if kernel:
                raise RuntimeError(kernel)
            return torch.zeros(1)

        monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
        monkeypatch.setattr(torch, "ones", ones)
        monkeypatch.setattr(torch, "version", SimpleNamespace(cuda="13.0"))
        fake = SimpleNamespace(is_available=available, init=init, get_device_name=lambda number: f"GPU {number}")
        monkeypatch.setattr(torch, "cuda", fake)

    return make


@pytest.mark.parametrize(
    ("environment", "cpu"),
    [
        ({}, False),
        ({"CUDA_VISIBLE_DEVICES": "0"}, False),
        ({"CUDA_VISIBLE_DEVICES": "GPU-7,3"}, False),
        ({"CUDA_VISIBLE_DEVICES": ""}, True),
        ({"CUDA_VISIBLE_DEVICES": " "}, True),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, True),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, True),  # Slurm's
        ({"CUDA_VISIBLE_DEVICES": "none"}, True),
        ({"CUDA_VISIBLE_DEVICES": " void "}, True),
        ({"CUDA_VISIBLE_DEVICES": "0,-1"}, False),
        ({"CUDA_VISIBLE_DEVICES": "cuda:0"}, False),  # a slip, of which torch is to speak
        ({"ROLLMILL_KIND": "cpu"}, True),
        ({"ROLLMILL_KIND": "gpu"}, False),
    ],
)
def test_environment_selecting_the_cpu_is_recognised(environment: dict[str, str], cpu: bool) -> None:
    assert wants_cpu(environment) == cpu


@pytest.mark.parametrize("text", [PROPRIETARY, OPEN])
def test_the_version_of_the_driver(machine: FakeMachine, text: str) -> None:
    machine.show(driver="570.133.20", text=text)
    assert driver_version() == "570.133.20"


def test_nvidia_smi_tells_what_the_driver_s_files_do_not(machine: FakeMachine) -> None:
    assert driver_version() is None
    machine.show("dxg")
    machine.nvidia_smi("596.49\\n")
    assert driver_version() == "596.49"
    machine.nvidia_smi("NVIDIA-SMI has failed because it could not communicate with driver 580.65\\n", code=9)
    assert driver_version() is None


def test_nvidia_smi_that_hangs_is_not_waited_for(machine: FakeMachine) -> None:
    machine.show("nvidiactl", "nvidia0")
    machine.hang()
    assert devices.ask_nvidia_smi("-L") == []


@pytest.mark.parametrize(
    ("cuda", "driver", "old"),
    [
        ("13.0", "570.133.20", True),
        ("13.1", "580.65.06", False),
        ("12.8", "535.54", False),
        ("12.8", "515.1", True),
        ("14.0", "1.2", False),
        (None, "570.1", False),
        ("13.0", None, False),
    ],
)
def test_which_driver_is_too_old(cuda: str | None, driver: str | None, old: bool) -> None:
    assert devices.is_driver_too_old(driver, cuda) == old


def test_a_machine_without_a_gpu_computes_on_the_cpu(machine: FakeMachine) -> None:
    assert choose_device() == "cpu"
    with pytest.raises(InputError, match=r"^device 'cuda': this machine has no GPU: give cpu$"):
        choose_device("cuda")


def test_wsl_graphics_without_nvidia_use_the_cpu(machine: FakeMachine) -> None:
    machine.show("dxg")
    assert choose_device() == "cpu"
    machine.nvidia_smi("0\\n")
    assert devices.nvidia_files() == [f"{machine.dev}/dxg"]


def test_a_gpu_is_used_where_torch_runs_on_it(machine: FakeMachine, cuda) -> None:
    machine.show("nvidiactl", "nvidia0", driver="580.65.06")
    cuda()
    assert choose_device() == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    assert choose_device("cpu") == "cpu"


def test_a_build_for_cpus_is_refused_where_a_gpu_is(machine: FakeMachine) -> None:
    if torch.version.cuda:
        pytest.skip("this torch is a build for GPUs")
    machine.show("nvidiactl", "nvidia0", driver="580.65.06")
    with pytest.raises(InputError) as refused:
        choose_device()
    message = str(refused.value)
    assert message.startswith(f"an NVIDIA GPU is here ({machine.dev}/nvidia0, driver 580.65.06), and torch 2.")
    assert "(a build without CUDA) cannot use it: Torch not compiled with CUDA enabled: run `make setup`" in message


@pytest.mark.parametrize("warned", [False, True])
def test_old_driver_is_refused_with_reason_and_required_version(machine: FakeMachine, cuda, warned: bool) -> None:
    """`is_available` warns once in a process; whoever asks later hears it from `init`."""
    machine.show("nvidiactl", driver="570.133.20")
    cuda(OLD)
    with pytest.raises(InputError) as refused:
        choose_device()
    message = str(refused.value)
    assert "driver 570.133.20), and torch 2.13.0+cu130 of" in message
    assert (
        "(built for CUDA 13.0, which needs driver 580 or later) cannot use it: The NVIDIA driver on your sys" in message
    )
    assert ": install driver 580 or later, or ask for the CPU: --device cpu" in message
    assert "more of it" not in message


@pytest.mark.parametrize("names", [["nvidiactl"], ["dxg", "libcuda.so.1"]])
def test_a_gpu_without_a_usable_kernel_is_refused(machine: FakeMachine, cuda, names: list[str]) -> None:
    machine.show(*names, driver="580.65.06")
    cuda(kernel="CUDA error: no kernel image is available for execution on the device\nCompile with ...")
    with pytest.raises(
        InputError, match=r"no kernel image is available for execution on the device: see the output of nvidia-smi"
    ):
        choose_device()
    assert choose_device(runs=False) == "cuda"


def test_a_device_file_that_may_not_be_opened_is_named(machine: FakeMachine, cuda, monkeypatch) -> None:
    machine.show("nvidiactl", driver="580.65.06")
    cuda("No CUDA GPUs are available")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may open everything
    with pytest.raises(InputError, match=f"let this user open {machine.dev}/nvidiactl, or ask for the CPU"):
        choose_device()


def test_hidden_gpu_is_reported(machine: FakeMachine, cuda, monkeypatch) -> None:
    machine.show("nvidiactl", "nvidia0", driver="580.65.06")
    cuda("No CUDA GPUs are available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(InputError, match=r"CUDA_VISIBLE_DEVICES is '7'\), and torch .* No CUDA GPUs are available"):
        choose_device()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_device() == "cpu"


def test_amd_gpu_is_refused_unless_cpu_is_requested(machine: FakeMachine, monkeypatch) -> None:
    machine.show("kfd")
    for choice in ("auto", "cuda"):
        with pytest.raises(InputError, match=r"^the AMD GPU here .* --base_url; or ask for the CPU: --device cpu"):
            choose_device(choice)
    assert choose_device("cpu") == "cpu"
    monkeypatch.setenv("ROLLMILL_KIND", "cpu")
    assert choose_device() == "cpu"


def test_another_environment_s_torch_is_asked_by_its_python() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rollmill.inference.devices"], capture_output=True, text=True, check=True
    )
    verdict = TorchVerdict(**json.loads(done.stdout))
    assert (verdict.version, verdict.cuda) == (str(torch.__version__), torch.version.cuda)
    assert (verdict.reason is None) == torch.cuda.is_available()


def test_used_device_is_described(machine: FakeMachine, cuda) -> None:
    machine.show(driver="580.65.06")
    cpu = devices.describe_use("cpu", "torch.float32")
    assert cpu == {"device": "cpu", "dtype": "float32", "count": 1}
    cuda()
    two = devices.describe_use("cuda", "torch.bfloat16", 2)
    assert two["names"] == ["GPU 0", "GPU 1"]
    assert two["driver"] == "580.65.06"
    assert devices.describe_use("cuda:1", "bfloat16")["names"] == ["GPU 1"]
    assert [devices.use_line(used) for used in (cpu, two)] == ["1 x cpu, float32", "2 x cuda (GPU 0, GPU 1), bfloat16"]
