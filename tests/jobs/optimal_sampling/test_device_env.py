import pytest
import torch

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.device_env import environments
from tests.gpus import FakeMachine
from tests.jobs.optimal_sampling.runs import parameters

SEE = "CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("gpus", "visible", "options", "result"),
    [
        (0, None, {}, [{}]),
        (0, None, {"workers": 2}, [{}, {}]),
        (2, None, {}, [{SEE: "0"}, {SEE: "1"}]),
        (2, "5, GPU-a1", {}, [{SEE: "5"}, {SEE: "GPU-a1"}]),
        (2, None, {"device": "cuda", "workers": 3}, [{SEE: "0"}, {SEE: "1"}, {SEE: "0"}]),
        (2, None, {"device": "cuda:1", "workers": 2}, [{}, {}]),
        (2, None, {"device": "cpu"}, [{}]),
        (2, None, {"backend": "vllm"}, [{SEE: "0"}, {SEE: "1"}]),
    ],
)
def test_a_process_for_each_gpu(tmp_path, monkeypatch, gpus, visible, options, result):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    environ = {} if visible is None else {SEE: visible}
    assert environments(parameters(tmp_path, **{"device": "auto", **options}), environ) == result


def test_unusable_gpu_is_refused_before_processes_start(tmp_path, monkeypatch):
    machine = FakeMachine(tmp_path / "machine", monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine.show("nvidiactl", driver="570.133.20")
    with pytest.raises(InputError, match=r"^an NVIDIA GPU is here .*driver 570.133.20"):
        environments(parameters(tmp_path, device="auto"), {})
    assert environments(parameters(tmp_path, device="cpu"), {}) == [{}]
    assert environments(parameters(tmp_path, device="auto"), {SEE: ""}) == [{}]
    assert environments(parameters(tmp_path, backend="vllm", device="auto"), {}) == [{}]  # that one asks its own torch


def test_the_cpu_has_no_process_for_each_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert environments(parameters(tmp_path, device="auto"), {"ROLLMILL_KIND": "cpu"}) == [{}]
