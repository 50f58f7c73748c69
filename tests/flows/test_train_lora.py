"""Training as users meet it: evaluated before and after, the adapter served or merged, and kill -9 on the way."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Job, journal_lines, processes_of, stop, write_problems
from tests.serving.adapters import make_adapter
from tests.training.made import CHATML, make_base, row, write_rows
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = f"--script '{json.dumps({'completion': '<answer>1</answer>'})}'"
LEARNED = f"--learned '{json.dumps({'completion': '<answer>7</answer>'})}'"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, another one, and an adapter for the first that PEFT made; nobody writes in here."""
    folder = tmp_path_factory.mktemp("made")
    make_base(folder / "base", CHATML)
    make_base(folder / "other", CHATML, hidden=48)
    make_adapter(folder / "adapter", folder / "base")
    return folder


@pytest.fixture
def job(made: Path, tmp_path: Path, stand_in: dict[str, str]) -> Job:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    write_rows(tmp_path / "train.jsonl", [row(number, "<answer>7</answer>") for number in range(12)])
    problems = [{"id": f"p{number}", "prompt": f"{number}?", "answer": 7} for number in range(20)]
    write_rows(tmp_path / "held_out.jsonl", problems)
    return Job("train_lora", tmp_path, stand_in | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})


def flags(serve: str = "auto", *, output_dir: str = "trained", **more: str) -> list[str]:
    given = {
        "model_path": "base", "train_data": "train.jsonl", "held_out": "held_out.jsonl", "output_dir": output_dir,
        "serve": serve, "lora_r": "12", "num_train_epochs": "1", "gradient_accumulation_steps": "1",
        "save_steps": "2", "max_length": "256", "max_tokens": "16", "vllm_args": f"{SCRIPT} {LEARNED}",
    }  # fmt: skip
    return [word for name, value in (given | more).items() for word in (f"--{name}", value)]


def numbers(folder: Path) -> dict[str, Any]:
    """What came of it, and what must not differ between two runs of the same parameters."""
    after = json.loads((folder / "after/evaluation/manifest.json").read_bytes())
    return {
        "evaluation": json.loads((folder / "evaluation.json").read_bytes()),
        "weights": (folder / "adapter_model.safetensors").read_bytes(),
        "steps": [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "generation": list(after["identity"]["generation"]),
    }


def states(folder: Path) -> dict[Path, int]:
    """When each file of training and journal was written."""
    lasting = [*folder.glob("*.safetensors"), folder / "metrics.jsonl", *folder.rglob("rollouts/*.jsonl")]
    return {path: path.stat().st_mtime_ns for path in lasting}


@pytest.mark.parametrize("serve", ["adapter", "merged"])
def test_before_and_after_in_both_ways_of_serving(job: Job, serve: str) -> None:
    done = job.run(*flags(serve), timeout=300)
    assert done.returncode == 0, done.stderr
    folder = job.folder / "trained"
    found = numbers(folder)
    assert {name: one["mean"] for name, one in found["evaluation"].items()} == {
        "before": 0,
        "after": 1,
        "difference": 1,
    }
    assert found["evaluation"]["difference"]["problems"] == 20
    assert len(found["steps"]) == 6
    assert (folder / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "merged").exists() == (serve == "merged")
    assert ("adapter" in found["generation"]) == (serve == "adapter")
    assert [word in done.stderr for word in ("held-out", "100.0%", "difference")] == [True] * 3
    assert ("many times slower with an adapter" in done.stderr) == (serve == "adapter")
    before, log = states(folder), (job.folder / "logs/evaluation_vllm.log").read_bytes()
    assert log.count(b"serving on port") == 2
    again = job.run(*flags(serve), timeout=200)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert (job.folder / "logs/evaluation_vllm.log").read_bytes() == log, "a server was started again"
    assert states(folder) == before
    assert numbers(folder) == found
    assert processes_of(str(job.folder)) == []


def test_killed_in_training_and_in_evaluation_it_ends_the_same(job: Job) -> None:
    slow = json.dumps({"completion": "<answer>7</answer>", "latency_s": 0.5})
    given = flags("adapter", slots="4", vllm_args=f"{SCRIPT} --learned '{slow}'")
    folder = job.folder / "trained"
    stages = ["metrics.jsonl", "before/evaluation/rollouts/0001.jsonl", "after/evaluation/rollouts/0001.jsonl"]
    for stage in stages:
        process = job.start(*given)
        wait_until(lambda: (folder / stage).exists() or process.poll() is not None, timeout=200)  # noqa: B023
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        wait_until(lambda: processes_of(str(job.folder)) == [])
    assert len(journal_lines(folder / "after")) < 20
    done = job.run(*given, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(journal_lines(folder / "after")) == 20
    killed = numbers(folder)
    assert job.run(*flags("adapter", output_dir="whole"), timeout=300).returncode == 0
    assert numbers(job.folder / "whole") == killed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_training_ends_it(job: Job, number: signal.Signals) -> None:
    given = flags("adapter", num_train_epochs="400", max_steps="2000")
    metrics = job.folder / "trained/metrics.jsonl"
    process = job.start(*given)
    wait_until(lambda: metrics.exists() or process.poll() is not None, timeout=200)
    code, said = stop(process, number, timeout=60)
    assert code != 0
    assert "Traceback" not in said
    assert processes_of(str(job.folder)) == []
    assert len(metrics.read_bytes().splitlines()) < 1500


def test_one_row(job: Job) -> None:
    write_rows(job.folder / "train.jsonl", [row(0, "<answer>7</answer>")])
    done = job.run(*flags("adapter"), timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 1
    assert json.loads(done.stdout)["rows"] == 1
    assert numbers(job.folder / "trained")["evaluation"]["after"]["mean"] == 1


def test_mistakes_in_how_to_serve_are_one_line(job: Job) -> None:
    done = job.run(*flags("adapter", lora_r="513"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().splitlines()[-1].endswith("lower --lora_r, or --serve merged")
    assert not (job.folder / "trained").exists()


def sampling(job: Job, *more: str) -> tuple[Job, list[str]]:
    write_problems(job.folder / "problems.jsonl", 10)
    given = ["--dataset", "problems.jsonl", "--num_rollout", "2", "--no_canary"]
    return Job("reject_sampling", job.folder, job.environment), [*given, *more]


def answers(folder: Path) -> set[str]:
    return {json.loads(line)["completion"] for line in journal_lines(folder)}


def test_base_and_adapter_side_by_side_and_a_server_that_dies(job: Job) -> None:
    """The server with the adapter dies at its sixth request; it comes back with the adapter."""
    learned = json.dumps({"completion": "<answer>7</answer>", "die_after": 6})
    given = ["--model_path", "base", "base", "--model_name", "plain", "adapted", "--adapter", "", "adapter"]
    script = ["--vllm_args", f"{SCRIPT} --learned '{learned}'", "--concurrency", "1"]
    other, line = sampling(job, *given, *script)
    done = other.run(*line, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "restart 1 of 3" in done.stderr
    results = job.folder / "reject_sampling_results"
    assert answers(results / "plain") == {"<answer>1</answer>"}
    assert answers(results / "adapted") == {"<answer>7</answer>"}
    assert len(journal_lines(results / "adapted")) == 20
    again = other.run(*line)
    assert again.stdout.count("already complete") == 2
    base = other.run(*line, "--adapter", "", "")
    assert base.returncode == 2, "flags add up"
    assert "4 --adapter but 2 --model_path" in base.stderr
    _, swapped = sampling(job, "--model_path", "base", "--model_name", "adapted", *script)
    refused = other.run(*swapped)
    assert refused.returncode == 1
    assert 'holds another run: adapter ("sha256:' in refused.stderr.strip().splitlines()[-1]


def test_an_adapter_of_another_base_is_refused_before_anything_starts(job: Job) -> None:
    given = ["--model_path", "base", "other", "--model_name", "good", "bad", "--adapter", "adapter", "adapter"]
    other, line = sampling(job, *given, "--vllm_args", SCRIPT)
    done = other.run(*line)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    trained_for = json.loads((job.folder / "adapter/adapter_config.json").read_bytes())["base_model_name_or_path"]
    assert f"the adapter adapter was trained for {trained_for}, not for other (" in said
    assert "inputs, the adapter 32" in said
    assert not (job.folder / "reject_sampling_results").exists()
    assert not (job.folder / "logs").exists()


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ("nowhere", "there is no adapter directory nowhere: give a local one"),
        ("base", "base is not a LoRA adapter but a whole model: give it as --model_path"),
    ],
)
def test_what_is_no_adapter_is_refused(job: Job, adapter: str, words: str) -> None:
    other, line = sampling(job, "--model_path", "base", "--model_name", "m", "--adapter", adapter)
    done = other.run(*line)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert words in done.stderr.strip().splitlines()[-1]
    assert not (job.folder / "logs").exists()
