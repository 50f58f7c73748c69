"""The improvement loop: a round that improves the policy, one that does not, and kill -9 at every stage."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from rollmill.jobs.improvement.data_sources import SOURCES, source_kind
from tests.exports.sample_corpus import lines_of
from tests.flows.conftest import ROOT, Job, processes_of
from tests.jobs.improvement.recorded_rollouts import recorded, write_lines
from tests.jobs.training.tiny_models import CHATML, make_base
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GUESS = {"completion": "<answer>{digit}</answer>"}
LEARNED = {"completion": "<answer>7</answer>"}


def write(path: Path, count: int, words: str) -> None:
    rows = [{"id": f"{words}{number}", "prompt": f"{words} {number}", "answer": 7} for number in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def job(tmp_path: Path, stand_in: dict[str, str]) -> Job:
    make_base(tmp_path / "base", CHATML)
    write(tmp_path / "train.jsonl", 12, "train")
    write(tmp_path / "held_out.jsonl", 20, "held out")
    write(tmp_path / "few_shot.jsonl", 2, "example")
    return Job("improve", tmp_path, stand_in | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})


def add_feeds(job: Job) -> list[str]:
    """Return flags for a second generating feed, and for one of existing rollouts: two verified, one unverified."""
    write(job.folder / "other.jsonl", 6, "other")
    (job.folder / "other.yaml").write_text("dataset: other.jsonl\nnum-rollout: 8\nmax_tokens: 16\nseed: 7\n")
    rows = [recorded(f"e{number}", f"episode {number}", "<answer>7</answer>") for number in range(3)]
    write_lines(job.folder / "episodes.jsonl", [*rows[:2], rows[2] | {"verdict": None}])
    return ["--feed", "reject_sampling=other.yaml", "data=episodes.jsonl"]


def flags(learned: dict[str, Any] = LEARNED) -> list[str]:
    script = f"--script '{json.dumps(GUESS)}' --learned '{json.dumps(learned)}'"
    data = ["--dataset", "train.jsonl", "--held_out", "held_out.jsonl", "--few_shot", "few_shot.jsonl"]
    small = ["--lora_r", "2", "--num_train_epochs", "1", "--max_tokens", "16", "--num_rollout", "8"]
    return ["--model_path", "base", *data, *small, "--rounds", "3", "--vllm_args", script]


def numbers(job: Job) -> dict[str, Any]:
    return json.loads((job.folder / "improved/rounds.json").read_text())


def test_loop_stops_without_improvement_and_refuses_contaminated_problems(job: Job) -> None:
    done = job.run(*flags(), timeout=400)
    assert done.returncode == 0, done.stderr
    result = numbers(job)
    assert [item["kept"] for item in result["rounds"]] == [True, False]
    assert result["base_accuracy"]["mean"] < 0.5
    assert result["rounds"][0]["accuracy"]["mean"] == 1.0
    assert result["stopped"] == "round 2 was not better beyond noise, and was rolled back"
    assert "policy: improved/round_01/adapter/merged" in done.stdout
    assert (job.folder / "improved/improvement.png").read_bytes().startswith(b"\x89PNG")
    rows = lines_of(job.folder / "improved/round_01/training_data/sft.jsonl")
    assert len(rows) == result["rounds"][0]["rows"] > 0
    assert all([turn["role"] for turn in row["messages"]] == ["user", "assistant"] for row in rows)
    assert processes_of(str(job.folder)) == []

    write(job.folder / "both_sides.jsonl", 20, "train")
    overlapping = ["--held_out", "both_sides.jsonl", "--output_dir", "refused"]
    (again, _), (refused, output) = job.fail_each(flags(), [*flags(), *overlapping])
    assert (again, refused) == (0, 1)
    assert numbers(job) == result
    assert "12 of 20 held-out problems are trained on" in output
    assert not (job.folder / "refused/base").exists()


def test_mistakes_in_a_data_source_file_are_one_line_before_the_start(job: Job) -> None:
    (job.folder / "other.yaml").write_text("dataset: other.jsonl\nnum_rollouts: 8\n")
    done = job.run(*flags(), "--feed", "reject_sampling=other.yaml")
    assert done.returncode == 2
    position = "improve: --feed reject_sampling: other.yaml line 2: num_rollouts"
    assert done.stderr == f"{position}: no such parameter; did you mean num_rollout?\n"
    assert not (job.folder / "improved").exists()


def test_every_generated_data_source_has_its_flow() -> None:
    from flows.improve import generating_flow

    flows = {name: generating_flow(name) for name in SOURCES if not source_kind(name).exists}
    assert {name: flow.fn.__name__ for name, flow in flows.items()} == {name: name for name in flows}


def test_loop_killed_at_every_stage_resumes_to_the_same_result(job: Job, tmp_path: Path) -> None:
    stages = [
        "base/evaluation/rollouts/0001.jsonl",
        "round_01/reject_sampling_1/rollouts/0001.jsonl",
        "round_01/training_data/chosen.json",
        "round_01/adapter/metrics.jsonl",
        "round_01/evaluation/rollouts/0001.jsonl",
    ]
    command = [*flags({"completion": "<answer>1</answer>"}), *add_feeds(job)]
    for stage in stages:
        process = job.start(*command)
        wait_until(lambda: (job.folder / "improved" / stage).exists() or process.poll() is not None, timeout=200)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        wait_until(lambda: processes_of(str(job.folder)) == [])
    done = job.run(*command, timeout=300)
    assert done.returncode == 0, done.stderr
    result = numbers(job)
    assert [item["kept"] for item in result["rounds"]] == [False]
    assert result["stopped"].startswith("round 1 was not better")
    item = result["rounds"][0]
    assert item["rollouts"] == (12 + 6) * 8
    assert item["feeds"]["data_2"] == 2
    assert all(0 < rows <= most for rows, most in zip(item["feeds"].values(), (12, 6, 2), strict=True))
    assert item["rows"] == sum(item["feeds"].values())
    assert "unverified 1" in done.stderr + done.stdout
    [dropped] = (
        row
        for row in lines_of(job.folder / "improved/round_01/training_data/chosen.dropped.jsonl")
        if row["drop_reason"] == "unverified"
    )
    assert dropped["instance_id"] == "e2"
    (job.folder / "improved").rename(tmp_path / "killed")
    assert job.run(*command, timeout=300).returncode == 0
    assert numbers(job) == result
    first, second = (
        root / "round_01/adapter/adapter_model.safetensors" for root in (tmp_path / "killed", job.folder / "improved")
    )
    assert first.read_bytes() == second.read_bytes()


def test_example_problem_files_share_no_question() -> None:
    folder = ROOT / "examples/improve"
    questions = [
        json.loads(line)["prompt"]
        for name in ("few_shot", "train", "held_out")
        for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]
    assert len(set(questions)) == len(questions) == 6 + 210 + 96
