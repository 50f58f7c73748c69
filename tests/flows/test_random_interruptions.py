"""Interruptions at random moments: the run ends in time with one line, leaves no process, and loses no rollout.

ROLLMILL_INTERRUPTIONS says how many each flow gets (2), ROLLMILL_INTERRUPTIONS_SEED which.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.scripted_agents import script_of
from rollmill.grading.pack import Pack
from rollmill.inference.scripted import ScriptedServer
from tests.exports.sample_corpus import rollout
from tests.flows.conftest import ROOT, Job, processes_of, script, write_problems
from tests.flows.test_agent_rollouts import FOLDER
from tests.flows.test_agent_rollouts import flags as agent_flags
from tests.flows.test_improve import flags as improve_flags
from tests.flows.test_improve import write
from tests.jobs.training.tiny_models import CHATML, make_base, row, write_rows
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

COUNT = int(os.environ.get("ROLLMILL_INTERRUPTIONS", "2"))
SEED = int(os.environ.get("ROLLMILL_INTERRUPTIONS_SEED", "0"))
END_S = 20
ENDED = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Flow(NamedTuple):
    """The command of a flow that runs for some seconds."""

    name: str
    arguments: list[str]
    output: str
    """Output folder; deleted when a run is complete, so that the next one starts from the beginning."""
    longest_s: float
    """Latest time of an interruption, in seconds after the start."""


def rejecting(folder: Path) -> Flow:
    write_problems(folder / "problems.jsonl", 60)
    model = ["--model_path", "m", "--model_name", "m", "--dataset", "problems.jsonl", "--num_rollout", "4"]
    work = ["--gpu_workers", "2", "--concurrency", "2", "--output_dir", "out", *script(latency_s=0.2, children=True)]
    return Flow("reject_sampling", [*model, *work], "out", 14)


def collecting(folder: Path) -> Flow:
    toy = ["--env_name", "tests.jobs.episodes.toy:ToyEnvironment", "--model_path", "scripted", "--num_episodes", "100"]
    work = ["--concurrency", "4", *script(latency_s=0.3, children=True)]
    return Flow("collect_episodes", [*toy, *work, "--output_dir", "out"], "out", 12)


def drawing(folder: Path) -> Flow:
    for seed, name in enumerate(("theta", "t")):
        make_base(folder / name, seed=seed)
    rows = [{"question": f"what is {number}?", "answer": number} for number in range(40)]
    write_rows(folder / "rows.jsonl", rows)
    models = ["--model_theta", "theta", "--model_t", "t", "--dataset", "rows.jsonl", "--output", "out/drawn.jsonl"]
    work = ["--max_new_tokens", "100", "--batch_size", "2", "--shard_size", "4", "--workers", "2"]
    return Flow("optimal_sampling", [*models, *work], "out", 16)


def training(folder: Path) -> Flow:
    make_base(folder / "base", CHATML)
    write_rows(folder / "train.jsonl", [row(number, "<answer>7</answer>") for number in range(40)])
    data = ["--model_path", "base", "--train_data", "train.jsonl", "--output_dir", "out", "--save_steps", "10"]
    work = ["--max_length", "256", "--num_train_epochs", "4", "--gradient_accumulation_steps", "1"]
    return Flow("train_lora", [*data, *work], "out", 18)


def curating(folder: Path) -> Flow:
    answers = ("right", "wrong", "so so")
    rows = [
        rollout(f"p{number}", 0, (number % 4) / 4, answer=f"{answers[number % 3]} {number}") for number in range(40_000)
    ]
    (folder / "raw.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    data = ["run", "--input", "raw.jsonl", "--output_dir", "out", "--drop-duplicates"]
    return Flow("curate", [*data, "--export", "sft", "trajectories", "preferences"], "out", 11)


def improving(folder: Path) -> Flow:
    make_base(folder / "base", CHATML)
    for words, name, count in (("train", "train", 12), ("held out", "held_out", 20), ("example", "few_shot", 2)):
        write(folder / f"{name}.jsonl", count, words)
    work = ["--gpu_workers", "2", "--output_dir", "out"]
    return Flow("improve", [*improve_flags(), *work], "out", 30)


@contextmanager
def start_in_group(flow: Flow, job: Job, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a new process group; kill it at the end of the block."""
    with subprocess.Popen(
        [*job.command(*flow.arguments)], cwd=job.folder, env=job.environment | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def journals(folder: Path) -> dict[Path, list[bytes]]:
    """Return the complete lines of every journal under a folder."""
    result = {path: path.read_bytes().splitlines(keepends=True) for path in folder.rglob("rollouts/[0-9]*.jsonl")}
    return {path: [line for line in lines if line.endswith(b"\n")] for path, lines in result.items()}


def interrupt(flow: Flow, job: Job, moments: random.Random) -> None:
    """Start the command, interrupt it at a random moment, and check exit status, output, processes and journals."""
    number = moments.choice([signal.SIGINT, signal.SIGTERM])
    send: Callable[[int, int], None] = moments.choice([os.kill, os.killpg])
    after_s, mark = moments.uniform(0.3, flow.longest_s), uuid.uuid4().hex
    before = journals(job.folder)
    what = f"{number.name} by {send.__name__} after {after_s:.2f} s"
    with start_in_group(flow, job, ROLLMILL_TEST=mark) as process:
        try:
            printed = "".join(process.communicate(timeout=after_s))
        except subprocess.TimeoutExpired:
            send(process.pid, number)
            printed = "".join(process.communicate(timeout=END_S))
        wait_until(lambda: processes_of(mark) == [], END_S, every=0.3)
    print(what, process.returncode, printed.strip().splitlines()[-1:])  # noqa: T201  # shown where the test fails
    assert "Traceback" not in printed, f"{what}: {printed}"
    # On a slow machine the guard may kill a process that would have ended by itself. A command that has completed
    # has no signal handler any more while its interpreter shuts down.
    assert process.returncode in {0, ENDED[number], -signal.SIGKILL, -number}, (
        f"{what}: {process.returncode}: {printed}"
    )
    assert (
        process.returncode in {0, -number}
        or printed.count(f"{flow.name}: stopped: run the same command again to continue") >= 1
    ), printed
    after = journals(job.folder)
    assert {path: after[path][: len(lines)] for path, lines in before.items()} == before
    if process.returncode == 0:
        shutil.rmtree(job.folder / flow.output)


@pytest.mark.parametrize("make", [rejecting, collecting, drawing, training, curating, improving])
def test_interruptions_at_random_moments(
    make: Callable[[Path], Flow], tmp_path: Path, sandboxes: Path, stand_in: dict[str, str]
) -> None:
    flow = make(tmp_path)
    variables = {"TMPDIR": str(sandboxes), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    job = Job(flow.name, tmp_path, stand_in | variables)
    moments = random.Random(f"{SEED} {flow.name}")
    for _ in range(COUNT):
        interrupt(flow, job, moments)


def test_interruptions_of_agents_at_random_moments(
    tmp_path: Path, sandboxes: Path, prefect_environment: dict[str, str]
) -> None:
    job = Job("agent_rollouts", tmp_path, prefect_environment | {"PYTHONPATH": str(ROOT), "TMPDIR": str(sandboxes)})
    moments = random.Random(f"{SEED} agents")
    with ScriptedServer(script_of(Pack(FOLDER), latency_s=0.2)) as server:
        arguments = agent_flags(server.base_url, "--gpu_workers", "2", output="out/agents.json", samples=8)
        flow = Flow("agent_rollouts", arguments, "out", 18)
        for _ in range(COUNT):
            interrupt(flow, job, moments)
