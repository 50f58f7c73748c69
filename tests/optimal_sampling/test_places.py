import pytest
import torch

from rollmill.optimal_sampling.places import environments
from tests.optimal_sampling.runs import parameters

SEE = "CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("gpus", "visible", "given", "found"),
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
def test_a_process_for_each_gpu(tmp_path, monkeypatch, gpus, visible, given, found):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    environ = {} if visible is None else {SEE: visible}
    assert environments(parameters(tmp_path, **{"device": "auto", **given}), environ) == found
