"""Which GPUs are counted, and their names, on simulated machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollmill.inference.visible_gpus import Gpu, find_gpus
from tests.gpus import FakeMachine

SEE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return FakeMachine(tmp_path / "machine", monkeypatch)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ([], ()),
        (["nvidiactl", "nvidia-uvm"], ()),
        (["nvidiactl", "nvidia0", "nvidia1", "nvidia-uvm", "nvidia-caps"], ("0", "1")),
        (["nvidiactl", "nvidia3"], ("0",)),  # the one GPU of a container
        (["nvidia3", "nvidia5", "nvidia10"], ("0", "1", "2")),
        (["dxg", "libcuda.so.1"], ("0",)),
        (["dxg"], ()),  # of graphics of Intel or AMD
        (["kfd"], ()),
    ],
)
def test_device_files_are_counted_without_nvidia_smi(
    machine: FakeMachine, files: list[str], names: tuple[str, ...]
) -> None:
    machine.show(*files)
    assert find_gpus({}).names == names


@pytest.mark.parametrize("code", [0, 9])
def test_nvidia_smi_that_lists_nothing_is_not_believed(machine: FakeMachine, code: int) -> None:
    machine.show("nvidiactl", "nvidia0")
    machine.nvidia_smi("Failed to initialize NVML: Driver/library version mismatch\\n", code=code)
    assert find_gpus({}).names == ("0",)


def test_nvidia_smi_is_run_once_where_no_gpu_is_in_mig_mode(machine: FakeMachine) -> None:
    """It may take a second for each GPU."""
    machine.show("nvidiactl", "nvidia0", "nvidia1")
    machine.nvidia_smi_lists([], ["GPU-a0, Disabled, NVIDIA H200", "GPU-a1, [N/A], NVIDIA H200"])
    assert find_gpus({}).gpus == (Gpu("0", "NVIDIA H200", "GPU-a0"), Gpu("1", "NVIDIA H200", "GPU-a1"))


@pytest.mark.parametrize("answer", ["GPU-a0, Disabled", 'Field "mig.mode.current" is not a valid field to query.'])
def test_driver_that_does_not_know_mig_lists_its_gpus(machine: FakeMachine, answer: str) -> None:
    machine.show("nvidiactl", "nvidia0", "nvidia1")
    machine.nvidia_smi_lists(["GPU 0: Tesla K80 (UUID: GPU-a0)"], [answer])
    assert find_gpus({}).gpus == (Gpu("0", "Tesla K80", "GPU-a0"),)


def test_nvidia_smi_alone_is_no_gpu(machine: FakeMachine) -> None:
    machine.nvidia_smi_lists(["GPU 0: NVIDIA H200 (UUID: GPU-a0)"])
    assert find_gpus({}).names == ()


def test_what_nvidia_smi_lists_counts_more_than_the_files(machine: FakeMachine) -> None:
    """A job of a scheduler sees all files in /dev, and may open those of its own GPUs."""
    machine.show("nvidiactl", *(f"nvidia{number}" for number in range(8)))
    machine.nvidia_smi_lists(["GPU 0: NVIDIA H200 (UUID: GPU-a4)", "GPU 1: NVIDIA H200 (UUID: GPU-a6)"])
    assert find_gpus({}).names == ("0", "1")
    assert find_gpus({SEE: "GPU-a6"}).names == ("GPU-a6",)


def test_gpus_of_wsl_are_counted_by_nvidia_smi(machine: FakeMachine) -> None:
    machine.show("dxg")
    machine.nvidia_smi_lists(["GPU 0: NVIDIA T4 (UUID: GPU-a0)", "GPU 1: NVIDIA T4 (UUID: GPU-a1)"])
    assert find_gpus({}).models == ["NVIDIA T4", "NVIDIA T4"]


def test_index_of_a_gpu_among_different_ones_is_certain_in_the_order_of_the_bus(machine: FakeMachine) -> None:
    """CUDA's default order begins with the fastest one, that of nvidia-smi with the first on the bus."""
    machine.show("nvidiactl", "nvidia0", "nvidia1")
    machine.nvidia_smi_lists(["GPU 0: NVIDIA T4 (UUID: GPU-a0)", "GPU 1: NVIDIA H200 (UUID: GPU-a1)"])
    ordered = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert find_gpus(ordered).gpus == (Gpu("0", "NVIDIA T4", "GPU-a0"), Gpu("1", "NVIDIA H200", "GPU-a1"))
    assert find_gpus({}).gpus == (Gpu("0"), Gpu("1"))
    assert find_gpus({SEE: "GPU-a1"}).gpus == (Gpu("GPU-a1", "NVIDIA H200", "GPU-a1"),)


@pytest.mark.parametrize(
    ("shown", "names"),
    [
        ("1", ("1",)),
        (" 1 , 0 ", ("1", "0")),
        ("+1", ("1",)),
        ("01", ("1",)),
        ("1gpu,0", ("1", "0")),  # CUDA reads the number that an entry begins with
        ("0,-1,1", ("0",)),
        ("0,1,,2", ("0", "1")),
        ("0,1,", ("0", "1")),
        ("0,any,1", ("0",)),
        ("0,4", ("0",)),
        ("4", ()),
        ("cuda:0", ()),
        ("0,1,0", ()),
        ("1,GPU-b1", ()),  # the same GPU twice
        ("GPU-a", ("GPU-a0",)),
        ("GPU-b1,GPU-a0", ("GPU-b1", "GPU-a0")),
        ("GPU-b", ()),  # the beginning of two UUIDs
        ("GPU-", ()),
        ("gpu-a0", ()),
        ("2,GPU-a0", ("2", "GPU-a0")),
        ("MIG-a0-0", ()),
        ("", ()),
        ("NoDevFiles", ()),
    ],
)
def test_presets_are_read_as_cuda_reads_them(machine: FakeMachine, shown: str, names: tuple[str, ...]) -> None:
    machine.show("nvidiactl", "nvidia0", "nvidia1", "nvidia2")
    uuids = ("GPU-a0", "GPU-b1", "GPU-b2")
    machine.nvidia_smi_lists([f"GPU {number}: NVIDIA H200 (UUID: {uuid})" for number, uuid in enumerate(uuids)])
    assert find_gpus({SEE: shown}).names == names


@pytest.mark.parametrize(
    ("shown", "names"),
    [
        (None, ("GPU-a1", "MIG-a0-0", "MIG-a0-1")),  # a GPU that is not divided comes first
        ("MIG-a0-1,MIG-a0-0", ("MIG-a0-1", "MIG-a0-0")),
        ("MIG-a0-1", ("MIG-a0-1",)),
        ("MIG-a0", ()),  # the beginning of two
        ("MIG-a1-0", ()),
        ("0", ("MIG-a0-0",)),  # CUDA takes the first instance
        ("1,0", ("1", "MIG-a0-0")),
        ("GPU-a0", ("MIG-a0-0",)),
        ("0,MIG-a0-0", ()),
        ("MIG-GPU-a0/1/0,MIG-GPU-a0/2/0", ("MIG-GPU-a0/1/0", "MIG-GPU-a0/2/0")),  # the form of drivers before 470
        ("MIG-GPU-a1/1/0", ()),
        ("2", ()),  # in MIG mode, without an instance
    ],
)
def test_each_mig_instance_is_a_gpu(machine: FakeMachine, shown: str | None, names: tuple[str, ...]) -> None:
    machine.show_gpus(3, instances={0: 2, 2: 0})
    assert find_gpus({} if shown is None else {SEE: shown}).names == names


def test_mig_instances_of_old_drivers(machine: FakeMachine) -> None:
    machine.show("nvidiactl", "nvidia0")
    lines = ["GPU 0: A100-SXM4-40GB (UUID: GPU-e9)", "  MIG 3g.20gb Device 0: (UUID: MIG-GPU-e9/1/0)"]
    machine.nvidia_smi_lists(lines)
    assert find_gpus({}).names == ("MIG-GPU-e9/1/0",)
    assert find_gpus({}).models == ["A100-SXM4-40GB (MIG)"]


@pytest.mark.parametrize("shown", ["GPU-5", "MIG-5", "MIG-GPU-5/1/0"])
def test_uuids_are_believed_where_none_are_known(machine: FakeMachine, shown: str) -> None:
    machine.show("nvidiactl", "nvidia0")
    assert find_gpus({SEE: shown}).names == (shown,)


def test_driver_s_files_name_gpus_by_the_number_of_the_device_file(machine: FakeMachine) -> None:
    machine.show("nvidiactl", "nvidia3", "nvidia5")
    for minor, model in ((5, "NVIDIA T4"), (3, "NVIDIA H200"), (0, "NVIDIA L4")):
        folder = machine.driver / "gpus" / f"0000:{9 - minor:02d}:00.0"
        folder.mkdir(parents=True)
        text = f"Model: \t\t {model}\nGPU UUID: \t GPU-a{minor}\nDevice Minor: \t {minor}\n"
        (folder / "information").write_text(text)
    assert find_gpus({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).models == ["NVIDIA H200", "NVIDIA T4"]
    assert find_gpus({SEE: "GPU-a5"}).names == ("GPU-a5",)
    assert find_gpus({SEE: "GPU-a0"}).names == ()


def test_uuid_that_the_driver_has_not_read_yet_is_not_known(machine: FakeMachine) -> None:
    machine.show("nvidiactl", "nvidia0")
    folder = machine.driver / "gpus/0000:00:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text("GPU UUID: \t GPU-????????\nDevice Minor: \t 0\n")
    assert find_gpus({SEE: "GPU-7"}).names == ("GPU-7",)


@pytest.mark.parametrize(
    ("environment", "names", "variables"),
    [
        ({}, ("0", "1"), {}),  # inherited
        ({}, ("0",), {SEE: "0"}),
        ({SEE: "1,0"}, ("1", "0"), {}),
        ({SEE: "1,0"}, ("0",), {SEE: "0"}),
        ({SEE: "GPU-a1"}, ("GPU-a1",), {}),
        ({SEE: "1, 0,"}, ("1", "0"), {SEE: "1,0"}),  # vLLM reads each entry as a number or a UUID
    ],
)
def test_variable_is_set_where_the_inherited_one_differs(
    machine: FakeMachine, environment: dict[str, str], names: tuple[str, ...], variables: dict[str, str]
) -> None:
    machine.show_gpus(2)
    assert find_gpus(environment).environment(names) == variables


def test_beginning_of_a_uuid_becomes_the_uuid_for_nvml_which_takes_no_beginnings(machine: FakeMachine) -> None:
    machine.show_gpus(1)
    gpus = find_gpus({SEE: "GPU-a"})
    assert gpus.environment(gpus.names) == {SEE: "GPU-a0"}


def test_meant_end_of_a_preset_is_no_fault(machine: FakeMachine) -> None:
    machine.show_gpus(2)
    assert [find_gpus({SEE: shown}).fault for shown in ("0", "0,", "0,-1")] == ["", "", ""]
    assert find_gpus({SEE: "0,-1,1"}).fault.startswith(f"{SEE} is '0,-1,1': CUDA ends the list at '-1'")


def test_container_s_variable_has_no_effect(machine: FakeMachine) -> None:
    machine.show_gpus(2)
    assert find_gpus({"NVIDIA_VISIBLE_DEVICES": "void"}).names == ("0", "1")
