"""Placement of q* processes, and the check of their torch: the real one, a build for CPUs."""

import subprocess
import sys

import pytest
import torch

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.device_env import check_torch, place_processes
from tests.gpus import FakeMachine
from tests.jobs.optimal_sampling.runs import parameters

SEE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return FakeMachine(tmp_path / "machine", monkeypatch)


@pytest.mark.parametrize(
    ("visible", "options", "result"),
    [
        (None, {}, [{SEE: "0"}, {SEE: "1"}]),
        ("1, GPU-a0", {}, [{SEE: "1"}, {SEE: "GPU-a0"}]),
        ("1", {}, [{}]),  # inherited
        (None, {"device": "cuda", "workers": 1}, [{SEE: "0"}]),
        (None, {"device": "cuda:1"}, [{}]),
        (None, {"device": "cuda:0", "workers": 2}, [{SEE: "0"}, {SEE: "1"}]),
        (None, {"device": "cpu", "workers": 3}, [{}, {}, {}]),
        (None, {"backend": "vllm"}, [{SEE: "0"}, {SEE: "1"}]),
    ],
)
def test_a_process_for_each_gpu(tmp_path, machine, visible, options, result):
    machine.show_gpus(2)
    environment = {} if visible is None else {SEE: visible}
    placement = place_processes(parameters(tmp_path, **{"device": "auto", **options}), environment)
    assert list(placement.environments) == result


def test_named_gpu_counts_more_than_the_choice_of_the_cpu_for_all(tmp_path, machine):
    machine.show_gpus(2)
    for device, count in (("auto", 1), ("cuda", 2)):
        placement = place_processes(parameters(tmp_path, device=device), {"ROLLMILL_KIND": "cpu"})
        assert len(placement.processes) == count


def test_unusable_gpu_is_refused_before_processes_start(tmp_path, machine):
    if torch.version.cuda:
        pytest.skip("this torch is a build for GPUs")
    machine.show("nvidiactl", "nvidia0", driver="570.133.20")
    for device in ("auto", "cuda", "cuda:0"):
        with pytest.raises(InputError, match=r"^an NVIDIA GPU is here .*driver 570.133.20.* cannot use it: Torch not"):
            check_torch(parameters(tmp_path, device=device), {})


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({"device": "cpu"}, {}),
        ({"device": "auto"}, {SEE: ""}),
        ({"device": "auto"}, {"ROLLMILL_KIND": "cpu"}),
        ({"device": "auto", "backend": "vllm"}, {}),  # that one asks its own torch
    ],
)
def test_torch_is_not_asked_where_it_takes_no_gpu(tmp_path, machine, options, environment):
    machine.show("nvidiactl", "nvidia0", driver="570.133.20")
    check_torch(parameters(tmp_path, **options), environment)


def test_amd_gpu_is_refused(tmp_path, machine):
    machine.show("kfd")
    with pytest.raises(InputError, match="the AMD GPU here"):
        check_torch(parameters(tmp_path, device="auto"), {})


def test_placement_imports_no_torch(tmp_path):
    code = (
        "import sys; from rollmill.jobs.optimal_sampling.device_env import check_torch, place_processes\n"
        "from rollmill.jobs.optimal_sampling.parameters import OptimalSampling\n"
        "call = OptimalSampling(model_theta='org/m', dataset='rows.jsonl', output='out.jsonl')\n"
        "place_processes(call), check_torch(call); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
