"""Complete runs with their worker processes: results, and recovery after kill -9."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import orjson
import psutil
import pytest
import torch
from safetensors.torch import load_file

from rollmill.errors import InputError, RunStoppedError
from rollmill.jobs.training import worker
from rollmill.jobs.training.base_check import check_adapter
from rollmill.jobs.training.checkpoints import (
    CHECKPOINTS,
    TrainingCheckpoint,
    checkpoint_path,
    complete_checkpoints,
    last_checkpoint,
)
from rollmill.jobs.training.metrics import METRICS, read_metrics
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.prepared import read_prepared
from rollmill.jobs.training.process import worker_command
from rollmill.jobs.training.progress import TrainingProgress
from rollmill.jobs.training.training import run_training
from rollmill.jobs.training.work import TrainingWork
from tests.flows.conftest import end_prepared, prepared
from tests.jobs.training import cpu_worker
from tests.jobs.training.prepared_workers import prepared_workers
from tests.jobs.training.tiny_models import make_base, row, write_rows
from tests.waiting import wait_until

__all__ = ["end_prepared"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
ROWS = [row(n, "ab" * (n % 5 + 1)) for n in range(96)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    result = tmp_path_factory.mktemp("training")
    make_base(result / "base")
    write_rows(result / "train.jsonl", [*ROWS, "{", row(199, "a" * 300)])
    write_rows(result / "validation.jsonl", [row(n, "abab") for n in range(140, 144)])
    return result


def parameters(folder, name, **more):
    options = {
        "model_path": str(folder / "base"),
        "train_data": str(folder / "train.jsonl"),
        "validation_data": str(folder / "validation.jsonl"),
        "output_dir": str(folder / name),
        "max_length": 128,
        "lora_r": 4,
        "lora_dropout": 0.2,
        "learning_rate": 1e-2,
        "gradient_accumulation_steps": 2,
        "save_steps": 5,
        "eval_steps": 10,
    }
    return TrainLora(**{**options, **more})


@pytest.fixture(scope="module")
def finished(folder):
    """Return a finished run."""
    with prepared_workers():
        return run_training(parameters(folder, "whole", merge=True))


def adapter(directory):
    return load_file(directory / "adapter_model.safetensors")


def test_files_of_a_finished_run(folder, finished):
    trained, directory = finished, folder / "whole"
    messages = read_metrics(directory / METRICS)
    assert (trained.directory, trained.adapter, trained.merged) == (directory, directory, directory / "merged")
    assert (trained.steps, trained.epochs, trained.rows, trained.validation_rows) == (72, 3.0, 96, 4)
    assert trained.dropped == {"unusable": 1, "over_max_length": 1}
    steps = [item for item in messages if item.loss is not None]
    assert [item.step for item in steps] == list(range(1, 73))
    assert trained.train_loss == pytest.approx(sum(item.loss for item in steps) / 72)
    assert trained.tokens == steps[-1].tokens
    evaluated = {item.step: item.eval_loss for item in messages if item.eval_loss is not None}
    assert sorted(evaluated) == [10, 20, 24, 30, 40, 48, 50, 60, 70, 72]
    assert trained.eval_loss == min(evaluated.values()) == evaluated[trained.best_step]
    assert {path.name for path in directory.iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "config.json"),
        *("tokenizer.json", "tokenizer_config.json", "training_args.bin", "README.md", "loss.png", "merged"),
        *("dropped.jsonl", "manifest.json", "metrics.jsonl", "logs", ".lock"),
    }
    assert (directory / "config.json").read_bytes() == (folder / "base" / "config.json").read_bytes()
    assert [orjson.loads(line)["line"] for line in (directory / "dropped.jsonl").read_bytes().splitlines()] == [97, 98]


def test_the_manifest_has_the_device(folder, finished):
    manifest = orjson.loads((folder / "whole" / "manifest.json").read_bytes())
    if not torch.cuda.is_available():
        assert manifest["device"] == {"device": "cpu", "dtype": "float32", "count": 1}
    assert "device" not in manifest["identity"]["generation"]


def test_the_model_card_has_data_hyperparameters_and_result(folder, finished):
    card = (folder / "whole" / "README.md").read_text()
    sha = orjson.loads((folder / "whole" / "manifest.json").read_bytes())["data"]["train"][0]["sha256"]
    for message in (
        sha,
        "| train | 96 | 96 |",
        "1 unusable, 1 over\\_max\\_length",
        "| lora\\_r | 4 |",
        "![Loss](loss.png)",
    ):
        assert message in card
    assert f"| weights of step | {finished.best_step} |" in card


def test_merged_weights_give_the_adapters_logits(folder, finished):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    ids = torch.tensor([[1, 20, 30, 40, 50]])
    with torch.no_grad():
        plain = base(ids).logits
        adapted = PeftModel.from_pretrained(base, folder / "whole")(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(finished.merged)(ids).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)
    assert (merged - plain).abs().max() > 1e-2


def test_a_finished_run_is_left_as_it_is(folder, finished):
    before = {path: path.stat().st_mtime_ns for path in (folder / "whole").rglob("*") if path.name != ".lock"}
    assert run_training(parameters(folder, "whole", merge=True)) == finished
    after = {path: path.stat().st_mtime_ns for path in (folder / "whole").rglob("*") if path.name != ".lock"}
    assert after == before
    snapshot = TrainingProgress(folder / "whole").snapshot()
    assert (snapshot.done, snapshot.total, snapshot.is_loading) == (72, 72, False)


def test_another_run_is_refused_with_what_differs(folder, finished, tmp_path):
    with pytest.raises(InputError, match=r"holds another run: seed \(0 on disk, 1 now\), lora_r \(4 on disk, 8 now\)"):
        run_training(parameters(folder, "whole", lora_r=8, seed=1))
    other = write_rows(tmp_path / "other.jsonl", ROWS[:3])
    with pytest.raises(InputError, match=r"train_data \(.*train.jsonl.* on disk, .*other.jsonl.* now\): give another"):
        run_training(parameters(folder, "whole", train_data=other))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not a training run's, and holds thesis.txt: give a new --output_dir"):
        run_training(parameters(folder, "whole", output_dir=str(tmp_path / "full")))


def test_an_adapter_for_another_base_is_refused(folder, finished, tmp_path):
    check_adapter(folder / "whole", str(folder / "base"))
    check_adapter(folder / "whole", str(shutil.copytree(folder / "base", tmp_path / "moved")))
    other = make_base(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=f"trained for {folder / 'base'}, not for {other} .their contents differ"):
        check_adapter(folder / "whole", str(other))


def workers(directory: Path):
    """Return the worker processes of a run."""
    result = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(directory) in part for part in line):
            result.append(process)
    return [
        item for item in result if item.info["cmdline"][1:3] == ["-m", "rollmill.jobs.training.worker"]
    ]  # no keepers


def steps_of(directory: Path):
    return max((item.step for item in read_metrics(directory / METRICS)), default=0)


def train_in_the_background(options):
    run_training(options)


def test_a_run_killed_twice_ends_with_the_same_weights(folder, finished):
    """First the worker is killed, at a random step, later the main process. Equal bit for bit, metrics included."""
    options, directory = parameters(folder, "killed"), folder / "killed"
    at = random.SystemRandom().randrange(4, 16)

    def kill():
        if steps_of(directory) >= at:
            for process in workers(directory):
                process.kill()
        return False

    with pytest.raises(
        InputError, match="was killed, most likely because the machine's memory ran out: lower --per_dev"
    ):
        run_training(options, stop=kill)
    reached = steps_of(directory)
    assert at <= reached < 72

    owner = multiprocessing.get_context("spawn").Process(target=train_in_the_background, args=(options,))
    owner.start()
    later = random.SystemRandom().randrange(reached + 4, reached + 12)
    wait_until(lambda: steps_of(directory) >= later, 60)
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    wait_until(lambda: not workers(directory))

    snapshot = TrainingProgress(directory).snapshot()
    assert snapshot.done == complete_checkpoints(directory / CHECKPOINTS)[-1].step > 0
    assert snapshot.describe() == f"{snapshot.done}/72 steps, loading model and rows"
    with prepared_workers():
        trained = run_training(options)
    expected = adapter(folder / "whole")
    for name, weight in adapter(directory).items():
        assert torch.equal(weight, expected.pop(name)), f"{name} differs, killed at {at} and {later}"
    assert not expected

    def numbers(run):
        return [(item.step, item.loss, item.eval_loss, item.tokens) for item in read_metrics(folder / run / METRICS)]

    assert numbers("killed") == numbers("whole")
    assert (trained.best_step, trained.eval_loss) == (finished.best_step, finished.eval_loss)


def test_a_stopped_full_training_ends_with_the_same_weights(folder):
    """Without LoRA: optimizer state of every weight; the worker ends as soon as it is stopped."""
    small = {"use_lora": False, "num_train_epochs": 1, "learning_rate": 1e-3}
    with prepared_workers():
        run_training(parameters(folder, "all_whole", **small))
    options, directory = parameters(folder, "all_stopped", **small), folder / "all_stopped"
    with pytest.raises(RunStoppedError, match=r"training in .*/all_stopped was stopped from outside; run the same"):
        run_training(options, stop=lambda: steps_of(directory) >= 7)
    assert workers(directory) == []
    assert complete_checkpoints(directory / CHECKPOINTS)[-1].step in range(5, 24)
    with prepared_workers():
        trained = run_training(options)
    assert (trained.adapter, trained.steps) == (None, 24)
    written, expected = (load_file(folder / run / "model.safetensors") for run in ("all_stopped", "all_whole"))
    before = load_file(folder / "base" / "model.safetensors")
    assert written.keys() == expected.keys() == before.keys()
    assert all(torch.equal(written[name], expected[name]) for name in written)
    assert not any(torch.equal(written[name], before[name]) for name in written if "proj" in name)


def test_a_run_without_a_checkpoint_may_be_replaced(folder, tmp_path):
    path = write_rows(tmp_path / "long.jsonl", [row(n, "a" * 300) for n in range(2)])
    options = parameters(folder, "given_up", train_data=path, num_train_epochs=1)
    with prepared_workers():
        with pytest.raises(
            InputError, match="all 2 rows of the train data have more than --max_length 128 tokens: raise it"
        ):
            run_training(options)
        trained = run_training(options.model_copy(update={"max_length": 512}))
    assert (trained.rows, trained.steps, trained.dropped) == (2, 1, {})


def test_two_processes_share_the_steps(folder, monkeypatch):
    """Like two GPUs, but on the CPU: half the steps, checkpoints with the random states of both processes."""
    options = parameters(folder, "two", num_gpus=2, num_train_epochs=1)
    work = TrainingWork(
        stage="prepare", parameters=options, base=str(folder / "base"), train=options.train_data,
        validation=options.validation_data, directory=folder / "two",
    )  # fmt: skip
    work.folder.mkdir(parents=True)
    work.write()
    subprocess.run([prepared(), "-m", cpu_worker.__name__, str(work.spec)], check=True)
    work = work.model_copy(update={"stage": "train"})
    work.write()
    command = [cpu_worker.__name__ if part == worker.__name__ else part for part in worker_command(work)]
    monkeypatch.setenv("PYTHON_EXEC", str(prepared()))  # which torchrun starts them with
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    metrics = read_metrics(work.directory / METRICS)
    assert [item.step for item in metrics if item.loss is not None] == list(range(1, 13))
    assert metrics[-1].epoch == 1
    assert metrics[-1].tokens == read_prepared(work.folder).train.tokens
    last = last_checkpoint(work.checkpoints)
    assert last == TrainingCheckpoint(step=12, best_step=last.best_step, over=True)
    states = [path.name for path in checkpoint_path(work.checkpoints, 12).glob("rng_state_*")]
    assert sorted(states) == ["rng_state_0.pth", "rng_state_1.pth"]
