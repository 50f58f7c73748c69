"""The training flow: evaluated before and after, the adapter served or merged, and kill -9 during it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.flows.conftest import Job, journal_lines, processes_of, stop, write_problems
from tests.inference.adapters import make_adapter
from tests.jobs.training.tiny_models import CHATML, make_base, row, write_rows
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = f"--script '{json.dumps({'completion': '<answer>1</answer>'})}'"
LEARNED = f"--learned '{json.dumps({'completion': '<answer>7</answer>'})}'"
SERVED = ("adapter", "merged")


class Finished(NamedTuple):
    """Finished runs and their outputs, by the way of serving."""

    job: Job
    output: dict[str, subprocess.CompletedProcess[str]]

    def folder(self, serve: str) -> Path:
        return self.job.folder / f"trained_{serve}"


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a base, another base, and a PEFT adapter for the first; tests must not write into this folder."""
    folder = tmp_path_factory.mktemp("made")
    make_base(folder / "base", CHATML)
    make_base(folder / "other", CHATML, hidden=48)
    make_adapter(folder / "adapter", folder / "base")
    return folder


def job_in(folder: Path, base_folder: Path, environment: dict[str, str]) -> Job:
    shutil.copytree(base_folder, folder, dirs_exist_ok=True)
    write_rows(folder / "train.jsonl", [row(number, "<answer>7</answer>") for number in range(12)])
    problems = [{"id": f"p{number}", "prompt": f"{number}?", "answer": 7} for number in range(20)]
    write_rows(folder / "held_out.jsonl", problems)
    return Job("train_lora", folder, environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})


@pytest.fixture
def job(base_folder: Path, tmp_path: Path, stand_in: dict[str, str]) -> Job:
    return job_in(tmp_path, base_folder, stand_in)


def flags(serve: str = "auto", *, output_dir: str = "trained", **more: str) -> list[str]:
    fields = {
        "model_path": "base", "train_data": "train.jsonl", "held_out": "held_out.jsonl", "output_dir": output_dir,
        "serve": serve, "lora_r": "12", "num_train_epochs": "1", "gradient_accumulation_steps": "1",
        "save_steps": "2", "max_length": "256", "max_tokens": "16", "vllm_args": f"{SCRIPT} {LEARNED}",
    }  # fmt: skip
    return [word for name, value in (fields | more).items() for word in (f"--{name}", value)]


def results_of(folder: Path) -> dict[str, Any]:
    """Return the results that must not differ between two runs of the same parameters."""
    after = json.loads((folder / "after/evaluation/manifest.json").read_bytes())
    return {
        "evaluation": json.loads((folder / "evaluation.json").read_bytes()),
        "weights": (folder / "adapter_model.safetensors").read_bytes(),
        "steps": [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "generation": list(after["identity"]["generation"]),
    }


def modification_times(folder: Path) -> dict[Path, int]:
    """Return the modification time of each file of training and journal."""
    lasting = [*folder.glob("*.safetensors"), folder / "metrics.jsonl", *folder.rglob("rollouts/*.jsonl")]
    return {path: path.stat().st_mtime_ns for path in lasting}


@pytest.fixture(scope="module")
def finished(base_folder: Path, tmp_path_factory: pytest.TempPathFactory, stand_in: dict[str, str]) -> Finished:
    """Run once with the adapter and once with merged weights, in one folder; only these runs may write there."""
    job = job_in(tmp_path_factory.mktemp("finished"), base_folder, stand_in)
    output = {serve: job.run(*flags(serve, output_dir=f"trained_{serve}"), timeout=300) for serve in SERVED}
    return Finished(job, output)


@pytest.mark.parametrize("serve", SERVED)
def test_evaluation_before_and_after_with_adapter_or_merged_model(finished: Finished, serve: str) -> None:
    done = finished.output[serve]
    assert done.returncode == 0, done.stderr
    folder = finished.folder(serve)
    figures = results_of(folder)
    means = {name: interval["mean"] for name, interval in figures["evaluation"].items()}
    assert means == {"before": 0, "after": 1, "difference": 1}
    assert figures["evaluation"]["difference"]["problems"] == 20
    assert len(figures["steps"]) == 6
    assert (folder / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "merged").exists() == (serve == "merged")
    assert ("adapter" in figures["generation"]) == (serve == "adapter")
    assert [word in done.stderr for word in ("held-out", "100.0%", "difference")] == [True] * 3
    assert ("many times slower with an adapter" in done.stderr) == (serve == "adapter")
    assert processes_of(str(finished.job.folder)) == []


def test_finished_run_is_not_changed(finished: Finished) -> None:
    job = finished.job
    before, figures, log = {}, {}, (job.folder / "logs/evaluation_vllm.log").read_bytes()
    for serve in SERVED:
        before[serve], figures[serve] = modification_times(finished.folder(serve)), results_of(finished.folder(serve))
    assert log.count(b"serving on port") == 4
    again = job.fail_each(*(flags(serve, output_dir=f"trained_{serve}") for serve in SERVED))
    for serve, (code, output) in zip(SERVED, again, strict=True):
        assert (code, output) == (0, finished.output[serve].stdout.strip().splitlines()[-1])
        assert modification_times(finished.folder(serve)) == before[serve]
        assert results_of(finished.folder(serve)) == figures[serve]
    assert (job.folder / "logs/evaluation_vllm.log").read_bytes() == log, "a server was started again"


def test_run_killed_in_training_and_evaluation_resumes_to_the_same_result(job: Job, finished: Finished) -> None:
    slow = json.dumps({"completion": "<answer>7</answer>", "latency_s": 0.5})
    fields = flags("adapter", slots="4", vllm_args=f"{SCRIPT} --learned '{slow}'")
    folder = job.folder / "trained"
    stages = ["metrics.jsonl", "before/evaluation/rollouts/0001.jsonl", "after/evaluation/rollouts/0001.jsonl"]
    for stage in stages:
        process = job.start(*fields)
        wait_until(lambda: (folder / stage).exists() or process.poll() is not None, timeout=200)  # noqa: B023
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        wait_until(lambda: processes_of(str(job.folder)) == [])
    assert len(journal_lines(folder / "after")) < 20
    done = job.run(*fields, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(journal_lines(folder / "after")) == 20
    assert results_of(folder) == results_of(finished.folder("adapter"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_training_ends_the_run(job: Job, number: signal.Signals) -> None:
    fields = flags("adapter", num_train_epochs="400", max_steps="2000")
    metrics = job.folder / "trained/metrics.jsonl"
    process = job.start(*fields)
    wait_until(lambda: metrics.exists() or process.poll() is not None, timeout=200)
    code, output = stop(process, number, timeout=60)
    assert code != 0
    assert "Traceback" not in output
    assert processes_of(str(job.folder)) == []
    assert len(metrics.read_bytes().splitlines()) < 1500


def test_unservable_rank_is_refused_before_the_training(job: Job) -> None:
    done = job.run(*flags("adapter", lora_r="513"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().splitlines()[-1].endswith("lower --lora_r, or --serve merged")
    assert not (job.folder / "trained").exists()


def sampling(job: Job, *more: str) -> tuple[Job, list[str]]:
    write_problems(job.folder / "problems.jsonl", 10)
    fields = ["--dataset", "problems.jsonl", "--num_rollout", "2", "--no_canary"]
    return Job("reject_sampling", job.folder, job.environment), [*fields, *more]


def answers(folder: Path) -> set[str]:
    return {json.loads(line)["completion"] for line in journal_lines(folder)}


def test_base_and_adapter_are_compared_and_a_dead_server_restarts(job: Job) -> None:
    """The server with the adapter dies at its sixth request; it restarts with the adapter."""
    learned = json.dumps({"completion": "<answer>7</answer>", "die_after": 6})
    fields = ["--model_path", "base", "base", "--model_name", "plain", "adapted", "--adapter", "", "adapter"]
    script = ["--vllm_args", f"{SCRIPT} --learned '{learned}'", "--concurrency", "1"]
    other, line = sampling(job, *fields, *script)
    done = other.run(*line, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "restart 1 of 3" in done.stderr
    results = job.folder / "reject_sampling_results"
    assert answers(results / "plain") == {"<answer>1</answer>"}
    assert answers(results / "adapted") == {"<answer>7</answer>"}
    assert len(journal_lines(results / "adapted")) == 20
    before = journal_lines(results)
    _, swapped = sampling(job, "--model_path", "base", "--model_name", "adapted", *script)
    (again, output), (twice, too_many), (refused, differs) = other.fail_each(
        line, [*line, "--adapter", "", ""], swapped
    )
    assert (again, output) == (0, done.stdout.strip().splitlines()[-1])
    assert journal_lines(results) == before
    assert twice == 2, "flags add up"
    assert "4 --adapter but 2 --model_path" in too_many
    assert refused == 1
    assert 'holds another run: adapter ("sha256:' in differs


def test_adapter_of_another_base_is_refused_before_the_start(job: Job) -> None:
    both = ["--model_path", "base", "other", "--model_name", "good", "bad", "--adapter", "adapter", "adapter"]
    nowhere, full = (["--model_path", "base", "--model_name", "m", "--adapter", name] for name in ("nowhere", "base"))
    other, _ = sampling(job)
    trained_for = json.loads((job.folder / "adapter/adapter_config.json").read_bytes())["base_model_name_or_path"]
    expected = [
        (f"the adapter adapter was trained for {trained_for}, not for other (", "inputs, the adapter 32"),
        ("there is no adapter directory nowhere: give a local one",),
        ("base is not a LoRA adapter but a complete model: give it as --model_path",),
    ]
    refused = other.fail_each(*(sampling(job, *fields, "--vllm_args", SCRIPT)[1] for fields in (both, nowhere, full)))
    for (code, output), words in zip(refused, expected, strict=True):
        assert code == 1
        assert all(part in output for part in words), output
    results = job.folder / "reject_sampling_results"
    assert not any((results / name).exists() for name in ("good", "bad"))
    assert not (job.folder / "logs").exists()
