"""Parameters, metrics, checkpoints, the manifest's identity, advice, and the worker's command: no torch."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from rollmill.errors import InputError
from rollmill.jobs.training import process
from rollmill.jobs.training.advice import is_out_of_memory, memory_advice
from rollmill.jobs.training.checkpoints import (
    TrainingCheckpoint,
    checkpoint_path,
    complete_checkpoints,
    keep_checkpoints,
    last_checkpoint,
    mark_complete,
)
from rollmill.jobs.training.data_files import DataFile, DataFiles
from rollmill.jobs.training.manifest import training_identity
from rollmill.jobs.training.metrics import MetricsLine, MetricsTail, cut_metrics, read_metrics
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.process import worker_command
from rollmill.jobs.training.work import TrainingWork
from rollmill.jobs.training.worker_lock import wait_until_free
from tests.gpus import FakeMachine

ARGUMENTS = {"model_path": "m", "train_data": ["a.jsonl"], "output_dir": "out"}
DATA = DataFiles([DataFile("a.jsonl", "1")], [])


def test_defaults():
    result = TrainLora(model_path="m", train_data="a.jsonl", output_dir="out")
    assert (result.num_train_epochs, result.per_device_train_batch_size, result.gradient_accumulation_steps) == (
        3,
        2,
        8,
    )
    assert (result.learning_rate, result.lora_r, result.lora_alpha, result.lora_dropout) == (5e-5, 64, 16, 0.05)
    assert result.train_data == ["a.jsonl"]
    assert result.use_lora


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"validation_data": "v.jsonl", "validation_share": 0.1}, "not both"),
        ({"use_lora": False, "merge": True}, "nothing to merge"),
        ({"target_modules": "lm_head"}, "never trained"),
        ({"target_modules": ["all-linear", "q_proj"]}, "cannot be combined with names of layers"),
        ({"lora_r": 0}, "greater than or equal to 1"),
        ({"warmup_ratio": 1.0}, "less than 1"),
    ],
)
def test_values_out_of_bounds_are_refused(more, message):
    with pytest.raises(ValidationError, match=message):
        TrainLora(**ARGUMENTS, **more)


def test_identity_is_what_determines_the_weights():
    base = TrainLora(**ARGUMENTS)

    def key(data=DATA, model="x", **more):
        return training_identity(base.model_copy(update=more), model, data).key

    same = (
        {"output_dir": "b"},
        {"merge": True},
        {"save_steps": 3},
        {"num_gpus": 0},
        {"train_data": ["b.jsonl"]},
        {"device": "cpu"},
    )
    assert {key(**more) for more in ({}, *same)} == {key()}
    other = ({"seed": 1}, {"lora_r": 8}, {"packing": True}, {"num_gpus": 2}, {"eval_steps": 2}, {"model": "y"})
    more_data = DATA._replace(train=[DataFile("a.jsonl", "2")]), DATA._replace(validation=DATA.train)
    assert len({key(), *(key(**more) for more in other), *(key(data) for data in more_data)}) == 9


def test_paths_become_absolute_for_another_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    options = TrainLora(**{**ARGUMENTS, "train_data": ["a.jsonl", "s3://b/c.jsonl", "/d.jsonl"]})
    absolute = options.with_absolute_paths()
    assert (absolute.model_path, absolute.output_dir) == (str(tmp_path / "m"), str(tmp_path / "out"))
    assert absolute.train_data == [str(tmp_path / "a.jsonl"), "s3://b/c.jsonl", "/d.jsonl"]
    assert absolute.model_copy(update=ARGUMENTS) == TrainLora(**ARGUMENTS)
    assert options.model_copy(update={"model_path": "org/model"}).with_absolute_paths().model_path == "org/model"


def test_metrics_are_read_while_written_and_cut_at_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.read_new() == []
    lines = [MetricsLine(step=step, steps=9, epoch=0, loss=1.0) for step in range(1, 5)]
    path.write_bytes(lines[0].line() + lines[1].line()[:9])
    assert tail.read_new() == lines[:1]
    with path.open("ab") as file:
        file.write(lines[1].line()[9:] + lines[2].line() + lines[3].line()[:-3])
    assert tail.read_new() == lines[1:3]
    assert tail.read_new() == []
    cut_metrics(path, 2)
    assert read_metrics(path) == tail.read_new() == lines[:2]
    assert MetricsTail(path).skip_existing().read_new() == []


def checkpoint(folder, step, *, total=True, **more):
    path = checkpoint_path(folder, step)
    path.mkdir(parents=True)
    (path / "weights").write_text("w")
    if total:
        mark_complete(folder, TrainingCheckpoint(step=step, **more))


def test_incomplete_checkpoints_are_ignored_and_removed(tmp_path):
    assert last_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 10, best_step=2)
    checkpoint(tmp_path, 4, best_step=4)
    checkpoint(tmp_path, 12, total=False)
    assert [item.step for item in complete_checkpoints(tmp_path)] == [2, 4, 10]
    assert last_checkpoint(tmp_path) == TrainingCheckpoint(step=10, best_step=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]
    keep_checkpoints(tmp_path, {10})
    assert [item.step for item in complete_checkpoints(tmp_path)] == [10]


def test_memory_advice_names_parameters_and_values():
    assert memory_advice(TrainLora(**ARGUMENTS)) == (
        "lower --per_device_train_batch_size to 1 (and raise --gradient_accumulation_steps to 16), "
        "add --gradient_checkpointing, lower --max_length from 2048, or lower --lora_r from 64"
    )
    tight = TrainLora(**ARGUMENTS, per_device_train_batch_size=1, gradient_checkpointing=True, use_lora=False)
    assert memory_advice(tight) == "lower --max_length from 2048, or train an adapter (--use_lora)"


def test_out_of_memory_errors_are_recognised():
    class OutOfMemoryError(RuntimeError):
        pass

    assert is_out_of_memory(OutOfMemoryError("any"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))


@pytest.mark.parametrize(
    ("options", "environment", "visible"),
    [
        ({}, {}, "0"),
        ({"num_gpus": 2}, {"CUDA_VISIBLE_DEVICES": "3,5,7"}, "3,5"),
        ({"num_gpus": 0}, {}, ""),
        ({"device": "cpu"}, {"CUDA_VISIBLE_DEVICES": "3"}, ""),
        ({}, {"ROLLMILL_KIND": "cpu"}, ""),
        ({}, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ""),
        ({"device": "cuda"}, {"ROLLMILL_KIND": "cpu"}, "0"),
    ],
)
def test_worker_sees_the_gpus_that_it_trains_on(tmp_path, monkeypatch, options, environment, visible):
    FakeMachine(tmp_path / "machine", monkeypatch).show_gpus(8)
    assert environment_of(tmp_path, environment, **options)["CUDA_VISIBLE_DEVICES"] == visible


def test_gpu_that_cannot_be_counted_is_not_hidden_from_torch(tmp_path, monkeypatch):
    FakeMachine(tmp_path / "machine", monkeypatch).show("nvidiactl")
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(tmp_path, {})


def test_merging_needs_no_gpu(tmp_path):
    assert environment_of(tmp_path, {}, stage="merge", num_gpus=8)["CUDA_VISIBLE_DEVICES"] == ""


def environment_of(folder, environment, *, stage="train", **options):
    requested = TrainLora(**ARGUMENTS, **options)
    work = TrainingWork(stage=stage, parameters=requested, base="m", train=[], validation=[], directory=folder)
    with process._worker_environment(work, environment) as variables:
        return variables


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 2), ("cuda", 0)])
def test_contradicting_device_and_gpu_count_are_refused(device, gpus):
    with pytest.raises(ValidationError, match=f"--device {device}: "):
        TrainLora(**ARGUMENTS, device=device, num_gpus=gpus)


def test_each_gpu_has_a_process(tmp_path):
    def command(gpus, stage="train"):
        options = TrainLora(**ARGUMENTS, num_gpus=gpus)
        work = TrainingWork(stage=stage, parameters=options, base="m", train=[], validation=[], directory=tmp_path)
        return " ".join(worker_command(work))

    assert "torch.distributed.run --standalone --nproc_per_node 4 -m rollmill" in command(4)
    assert "torch" not in command(1) + command(0) + command(4, "prepare") + command(4, "merge")


def test_a_resumed_run_waits_for_the_previous_worker(tmp_path):
    path = tmp_path / "logs" / ".worker"
    wait_until_free(path)
    code = "import sys; from pathlib import Path; from rollmill.jobs.training.worker_lock import lock_until_exit\n"
    code += "lock_until_exit(Path(sys.argv[1])); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        worker.stdout.readline()
        with pytest.raises(InputError, match=r"still holds .*\.worker after 0.3 s: end it first"):
            wait_until_free(path, 0.3)
        worker.kill()
    wait_until_free(path, 0.3)


def test_starting_a_run_does_not_import_torch():
    code = "import sys, rollmill.jobs.training.training\n"
    code += "print({'torch', 'transformers', 'trl', 'peft'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"
