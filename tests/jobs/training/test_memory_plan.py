"""The decision on what saves memory: made once on a GPU, never on the CPU."""

import importlib.machinery
import importlib.util
from types import SimpleNamespace

import pytest

from rollmill.errors import InputError
from rollmill.jobs.training import memory_plan, publishing, training
from rollmill.jobs.training.advice import step_line
from rollmill.jobs.training.data_files import DataFiles
from rollmill.jobs.training.manifest import training_identity
from rollmill.jobs.training.memory_plan import check_four_bit, plan_memory, planned_parameters, read_plan
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.trainer import load_base
from rollmill.jobs.training.work import TrainingWork
from tests.jobs.training.tiny_models import make_base

PREPARED = SimpleNamespace(train=SimpleNamespace(longest=96))
GIB = 2**30


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(make_base(tmp_path_factory.mktemp("models") / "base"))


@pytest.fixture
def make_work(base, tmp_path):
    def make(stage="train", **more):
        options = {"model_path": base, "train_data": "t.jsonl", "output_dir": str(tmp_path), "num_gpus": 1, **more}
        work = TrainingWork(
            stage=stage, parameters=TrainLora(**options), base=base, train=[], validation=[], directory=tmp_path
        )
        work.folder.mkdir(exist_ok=True)
        return work

    return make


@pytest.fixture
def gpu(monkeypatch):
    """A GPU whose free memory is set; bitsandbytes is there."""
    monkeypatch.setattr(memory_plan, "on_cpu", lambda _: False)
    monkeypatch.setattr(memory_plan, "has_bf16", lambda _: True)
    monkeypatch.setattr(memory_plan, "has_bitsandbytes", lambda: True)

    def set_free(gib):
        monkeypatch.setattr(memory_plan, "free_memory", lambda _: gib * GIB)

    return set_free


def test_cpu_decides_nothing(make_work):
    plan = plan_memory(make_work(num_gpus=0), PREPARED)
    assert (plan.gradient_checkpointing, plan.load_in_4bit, plan.line) == (False, False, "")
    assert plan_memory(make_work(num_gpus=0, gradient_checkpointing=True), PREPARED).gradient_checkpointing


def test_gpu_with_room_saves_nothing_and_the_estimate_is_reported_in_one_line(make_work, gpu):
    gpu(80)
    plan = plan_memory(make_work(), PREPARED)
    assert (plan.gradient_checkpointing, plan.load_in_4bit) == (False, False)
    assert plan.line.startswith("memory, estimated: 0.0 weights + 0.0 trained weights and optimizer + ")
    assert plan.line.endswith(" of 80.0 free: without gradient checkpointing and 4-bit weights")
    assert "\n" not in plan.line


def test_gpu_without_room_saves_what_it_can(make_work, gpu):
    gpu(1)
    plan = plan_memory(make_work(), PREPARED)
    assert (plan.gradient_checkpointing, plan.load_in_4bit) == (True, True)
    assert "with gradient checkpointing and 4-bit weights, since 1.5 GiB would be needed otherwise" in plan.line
    assert plan.line.endswith("; it may run out")


def test_flags_force_and_forbid_savings(make_work, gpu):
    gpu(1)
    plan = plan_memory(make_work(gradient_checkpointing=False, load_in_4bit=False), PREPARED)
    assert (plan.gradient_checkpointing, plan.load_in_4bit) == (False, False)
    gpu(80)
    forced = make_work(gradient_checkpointing=True, load_in_4bit=True)
    forced.memory.unlink()
    plan = plan_memory(forced, PREPARED)
    assert (plan.gradient_checkpointing, plan.load_in_4bit) == (True, True)


def test_run_that_is_continued_keeps_its_weights_and_decides_checkpointing_again(make_work, gpu, monkeypatch):
    gpu(1)
    work = make_work()
    plan_memory(work, PREPARED)
    gpu(80)
    plan = plan_memory(work, PREPARED)
    assert (plan.gradient_checkpointing, plan.load_in_4bit) == (False, True)
    assert planned_parameters(work).load_in_4bit
    monkeypatch.setattr(memory_plan, "on_cpu", lambda _: True)
    with pytest.raises(InputError, match="chosen when the run was begun: bitsandbytes trains on NVIDIA GPUs"):
        plan_memory(work, PREPARED)


def test_of_several_processes_the_one_that_prepares_decides(make_work, gpu, monkeypatch):
    gpu(1)
    plan = plan_memory(make_work("prepare", num_gpus=2), PREPARED)
    monkeypatch.setattr(memory_plan, "free_memory", lambda _: pytest.fail("a rank decided"))
    assert plan_memory(make_work(num_gpus=2), PREPARED) == plan == read_plan(make_work())


def test_rows_are_as_long_as_the_longest_one(make_work):
    assert memory_plan.longest_row(make_work(max_length=2048).parameters, PREPARED) == 96
    assert memory_plan.longest_row(make_work(max_length=64).parameters, PREPARED) == 64
    assert memory_plan.longest_row(make_work(max_length=2048, packing=True).parameters, PREPARED) == 2048


def test_four_bits_without_bitsandbytes_are_refused(make_work, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    check_four_bit(make_work().parameters)
    with pytest.raises(InputError, match="--load_in_4bit: bitsandbytes is not installed: `pip install bitsandbytes`"):
        check_four_bit(make_work(load_in_4bit=True).parameters)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None))
    check_four_bit(make_work(load_in_4bit=True).parameters)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"use_lora": False}, "weights of 4 bits are not trained themselves: give --use_lora"),
        ({"num_gpus": 0}, "bitsandbytes trains on NVIDIA GPUs"),
        ({"device": "cpu"}, "bitsandbytes trains on NVIDIA GPUs"),
    ],
)
def test_four_bits_that_cannot_be_are_refused(make_work, more, message):
    with pytest.raises(ValueError, match=message):
        make_work(load_in_4bit=True, **more)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.gpu
def test_four_bits_quantize_the_layers(make_work):
    model = load_base(make_work().base, make_work(load_in_4bit=True).parameters)
    assert type(model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"


def test_identity_of_a_run_without_savings_is_that_of_earlier_versions(make_work):
    def identity(**more):
        return training_identity(make_work(**more).parameters, "base", DataFiles([], [])).generation

    plain = identity()
    assert plain["gradient_checkpointing"] is False
    assert "load_in_4bit" not in plain
    assert identity(gradient_checkpointing=False, load_in_4bit=False) == plain
    assert identity(gradient_checkpointing=True)["gradient_checkpointing"] is True
    assert identity(load_in_4bit=True)["load_in_4bit"] is True


def test_decision_is_recorded_in_the_manifest_and_the_card(make_work, gpu):
    gpu(1)
    work = make_work()
    plan_memory(work, PREPARED)
    work.device.write_text('{"device": "cuda", "dtype": "bfloat16", "count": 1}')
    recorded = training._device_and_savings(work)
    assert recorded == {
        "device": "cuda",
        "dtype": "bfloat16",
        "count": 1,
        "gradient_checkpointing": True,
        "load_in_4bit": True,
    }
    manifest = SimpleNamespace(parameters=work.parameters.model_dump(mode="json"), device=recorded)
    assert dict(publishing._hyperparameters(manifest))["load_in_4bit"] is True


def test_rows_of_a_step_are_reported_as_a_product(make_work):
    assert step_line(make_work().parameters) == "an optimizer step has 2 rows x 8 batches x 1 device = 16 rows"
    several = make_work(num_gpus=4, packing=True, per_device_train_batch_size=1).parameters
    assert step_line(several) == "an optimizer step has 1 packs x 8 batches x 4 devices = 32 packs"
    assert make_work(num_gpus=0).parameters.step_rows == 16
