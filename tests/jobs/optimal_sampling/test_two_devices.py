"""A pair on two devices. `meta` stands for the second one: torch refuses any operation on tensors of both."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling import pair as pair_module
from rollmill.jobs.optimal_sampling.model import OptimalSamplingModel
from tests.jobs.optimal_sampling.tiny_pairs import decode, load_pair, make_model, requests

PROMPTS = [([3, 4, 5], [6, 7]), ([8], [3, 4, 5, 6, 7, 8]), ([9, 9], [9, 9])]
_VALUES = (torch.ops.aten.item, torch.ops.aten._local_scalar_dense, torch.ops.aten.is_nonzero)


class Transfers(TorchDispatchMode):
    """Counts copies from the device `meta`, whose tensors have no values: each gets the logits that are given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        target = kwargs.get("device")  # of `aten.to`: in inference mode it is not split into other operations
        if func.overloadpacket is torch.ops.aten.to and args[0].is_meta and target == torch.device("cpu"):
            self.shapes.append(tuple(args[0].shape))
            return self.logits.expand(args[0].shape).clone()
        if func.overloadpacket in _VALUES and args[0].is_meta:
            return False  # transformers asks whether a mask hides nothing
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "theta"), make_model(folder / "t", seed=1)


def test_logits_of_the_second_device_come_over_in_one_copy_a_step(models):
    pair = load_pair(*models, device="cpu", device_t="meta")
    assert (pair.theta.network.device.type, pair.t.network.device.type) == ("cpu", "meta")
    logits = torch.zeros(12)
    logits[1] = -30.0  # the end token is never drawn
    with Transfers(logits) as transfers:
        drawn = decode(pair, requests(PROMPTS), max_new_tokens=5, batch_size=3)
    assert [len(item.token_ids) for item in drawn.values()] == [5, 5, 5]
    # The first token of each follows its prompt, the other four are drawn together.
    prefills, steps = transfers.shapes[:-4], transfers.shapes[-4:]
    assert sum(rows for rows, _ in prefills) == 3
    assert steps == [(3, 12)] * 4


def test_second_device_is_named_with_its_model_and_counted(models, caplog):
    caplog.set_level("INFO")
    pair = load_pair(*models, device="cpu", device_t="meta")
    assert (pair.used["device"], pair.used["count"]) == ("cpu and meta", 2)
    assert "loading the models on 2 x cpu and meta, float32" in caplog.text
    assert load_pair(*models, device="cpu", device_t="cpu").used["count"] == 1


def test_answers_are_the_same_on_a_device_given_twice(models):
    pairs = (load_pair(*models, device="cpu"), load_pair(*models, device="cpu", device_t="cpu:0"))
    plain, named = (decode(pair, requests(PROMPTS), max_new_tokens=8) for pair in pairs)
    assert {key: item.token_ids for key, item in plain.items()} == {k: item.token_ids for k, item in named.items()}


@pytest.mark.parametrize(
    ("device", "device_t", "count", "shared", "expected"),
    [
        (None, None, 2, False, ("cuda:0", "cuda:1")),
        (None, None, 1, False, ("cuda", "cuda")),
        (None, None, 2, True, ("cuda", "cuda")),
        ("cuda:1", None, 2, False, ("cuda:1", "cuda:1")),
        ("cuda:1", "cuda:0", 2, False, ("cuda:1", "cuda:0")),
        (None, "cuda:1", 2, False, ("cuda", "cuda:1")),
    ],
)
def test_second_gpu_takes_pi_t_where_both_are_visible(monkeypatch, device, device_t, count, shared, expected):
    monkeypatch.setattr(pair_module, "choose_device", lambda device="cuda": device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    chosen = pair_module._devices(_Spec(shared), device, device_t)
    assert tuple(map(str, chosen)) == expected


class _Spec:
    """The part of a `PairSpec` on which devices depend."""

    def __init__(self, shared):
        self.shared = shared


def test_second_device_of_shared_weights_is_refused(models):
    with pytest.raises(InputError, match=r"device_t 'meta': both models have the weights of .*, which are loaded once"):
        load_pair(models[0], device="cpu", device_t="meta")
    with pytest.raises(InputError, match="device 'moon': there is no such device"):
        load_pair(*models, device="cpu", device_t="moon")


def test_python_interface_takes_a_second_device(models):
    model = OptimalSamplingModel(*models, device="cpu", device_t="meta")
    assert model.pair.t.network.device.type == "meta"


def test_memory_advice_names_a_second_gpu():
    advice = pair_module._memory_advice(torch.bfloat16, more_devices=True)
    assert "a GPU to each model (--device cuda:0 --device_t cuda:1)" in advice
    assert "--device_t" not in pair_module._memory_advice(torch.bfloat16, more_devices=False)
