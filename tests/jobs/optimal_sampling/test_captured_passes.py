"""Decoding passes that are captured and repeated.

CUDA graphs need a GPU. `torch.fx` stands in for them: it, too, records the operations of a pass with the tensors that
they read and write, and repeats them without the Python code around them. So what would go wrong in a graph, such as a
tensor that has been replaced or a number that was on the host, goes wrong here.
"""

from __future__ import annotations

import logging

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from rollmill.jobs.optimal_sampling.captured_passes import SWITCH, CapturedPasses, cuda_passes
from rollmill.jobs.optimal_sampling.token_sampler import TokenSampler
from tests.jobs.optimal_sampling.tiny_pairs import decode, load_pair, make_model, requests


class AsOnGpu(TorchFunctionMode):
    """Has the code take the paths of a GPU, on which it looks at nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return False if func == torch.Tensor.is_cpu.__get__ else func(*args, **(kwargs or {}))


class Recording:
    """Repeats the recorded operations."""

    def __init__(self, forward):
        self._graph, self.output = make_fx(forward)(), None
        self.replay()

    def replay(self):
        result = self._graph()
        if self.output is None:
            self.output = torch.empty_like(result)
        self.output.copy_(result)


class Recorder:
    """Records passes as `torch.fx` graphs."""

    def __init__(self):
        self.recordings = []

    def __call__(self, forward):
        # A graph is captured without running. This one runs: what it writes to the KV cache is written again.
        self.recordings.append(Recording(forward))
        return self.recordings[-1], self.recordings[-1].output


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "theta", words=40), make_model(folder / "t", words=40, kind="qwen3", seed=1, eos=[2])


def record(pair):
    """Capture the passes of both networks; return their recorders."""
    recorders = []
    for network in pair.networks:
        recorders.append(Recorder())
        network._passes = CapturedPasses(recorders[-1], network.name)
    return recorders


PROMPTS = [([3 + n % 30] * (20 + 5 * n), [5, 4 + n]) for n in range(9)]
SETTINGS = {"batch_size": 3, "max_new_tokens": 90}


def test_captured_passes_give_the_same_samples_to_the_bit(folders):
    plain = decode(load_pair(*folders), requests(PROMPTS), **SETTINGS)
    pair = load_pair(*folders)
    recorders = record(pair)
    captured = decode(pair, requests(PROMPTS), **SETTINGS)
    assert captured == plain
    assert all(len(recorder.recordings) >= 2 for recorder in recorders)


def test_samples_of_a_second_call_do_not_use_the_first_calls_cache(folders):
    pair = load_pair(*folders)
    record(pair)
    first = decode(pair, requests(PROMPTS[:4]), **SETTINGS)
    second = decode(pair, requests(PROMPTS[4:]), **SETTINGS)
    plain = decode(load_pair(*folders), requests(PROMPTS), **SETTINGS)
    assert {key: answer.token_ids for key, answer in first.items()} == {key: plain[key].token_ids for key in first}
    assert len(second) == 5


@pytest.mark.parametrize("cuts", [{}, {"top_p": 0.9, "temperature": 0.7}])
def test_captured_draws_equal_those_that_look_at_once(cuts):
    generator = torch.Generator().manual_seed(0)
    sampler, recorder = TokenSampler(**cuts), Recorder()
    sampler.passes = CapturedPasses(recorder, "the draw")
    for number in range(12):
        theta, t = torch.randn((2, 4, 500), generator=generator) * 3
        uniforms = torch.rand(4, generator=generator, dtype=torch.float64)
        rows = 4 - number % 2  # of two shapes
        with AsOnGpu():
            step = sampler.draw_deferred(theta[:rows], t[:rows], uniforms[:rows])
        assert step == sampler.draw(theta[:rows], t[:rows], uniforms[:rows].tolist())
    assert len(recorder.recordings) == 2


def test_a_pass_is_captured_the_second_time_and_repeated_then():
    recorder, calls = Recorder(), []
    passes = CapturedPasses(recorder, "model")

    def forward(values):
        calls.append(len(values))
        return values * 2

    results = [passes.run("shape", forward, torch.full((2,), float(n))).tolist() for n in range(5)]
    assert results == [[2.0 * n] * 2 for n in range(5)]
    assert (len(recorder.recordings), len(calls)) == (1, 2)


def test_clear_forgets_the_captured_passes():
    recorder = Recorder()
    passes = CapturedPasses(recorder, "model")
    for _ in range(2):
        for _ in range(3):
            passes.run("shape", torch.neg, torch.ones(2))
        passes.clear()
    assert len(recorder.recordings) == 2


def test_a_pass_that_cannot_be_captured_runs_as_it_is(caplog):
    def refuse(forward):
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors ...")

    passes = CapturedPasses(refuse, "the/model")
    with caplog.at_level(logging.WARNING):
        results = [passes.run("shape", torch.neg, torch.tensor([float(n)])).item() for n in range(4)]
    assert results == [0.0, -1.0, -2.0, -3.0]
    assert [record.getMessage() for record in caplog.records] == [
        "passes of the/model run kernel by kernel, since they cannot be captured: "
        "operation not permitted when stream is capturing"
    ]


def test_memory_that_runs_out_in_a_capture_is_raised():
    def fail(forward):
        raise torch.OutOfMemoryError("CUDA out of memory")

    passes = CapturedPasses(fail, "model")
    passes.run("shape", torch.neg, torch.ones(1))
    with pytest.raises(torch.OutOfMemoryError):
        passes.run("shape", torch.neg, torch.ones(1))


def test_passes_are_captured_on_gpus_alone(monkeypatch):
    assert cuda_passes(torch.device("cpu"), "model") is None
    monkeypatch.setenv(SWITCH, "0")
    assert cuda_passes(torch.device("cuda"), "model") is None
