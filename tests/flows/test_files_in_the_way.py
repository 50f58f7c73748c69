"""A wrong kind of file at the path of a job's file: the error is one line that names it, and nothing hangs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollmill.inference.scripted import Script, ScriptedServer
from tests.flows.conftest import ROOT, Job, write_problems
from tests.generation.run_factory import mounted
from tests.jobs.training.tiny_models import make_base

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOY = ["--env_name", "tests.jobs.episodes.toy:ToyEnvironment", "--model_path", "oracle", "--num_episodes", "4"]
MODEL = ["--model_path", "m", "--model_name", "run"]
AGENTS = ["generate-multi", "--model", "m", "--dataset", str(ROOT / "examples/performance_problems/dataset.json")]
FLOWS: dict[str, Callable[[str], list[str]]] = {
    "reject_sampling": lambda path: [*MODEL, "--dataset", "p.jsonl", "--output_dir", path],
    "collect_episodes": lambda path: [*TOY, "--output_dir", path],
    "agent_rollouts": lambda path: [*AGENTS, "--base-url", "http://127.0.0.1:9", "--output", f"{path}/out.json"],
    "optimal_sampling": lambda path: [
        "--model_theta",
        "base",
        "--dataset",
        "p.jsonl",
        "--output",
        f"{path}/out.jsonl",
    ],
    "train_lora": lambda path: ["--model_path", "base", "--train_data", "rows.jsonl", "--output_dir", path],
    "improve": lambda path: [
        "--model_path",
        "base",
        "--dataset",
        "p.jsonl",
        "--held_out",
        "p.jsonl",
        "--output_dir",
        path,
    ],
}
"""Each flow with the folder that it is to write to."""


@pytest.fixture
def environment(tmp_path: Path, prefect_environment: dict[str, str]) -> dict[str, str]:
    write_problems(tmp_path / "p.jsonl", 2)
    options = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MARK": str(tmp_path)}
    return prefect_environment | options


@pytest.mark.parametrize("name", FLOWS)
def test_unwritable_output_is_one_line(tmp_path: Path, environment: dict[str, str], name: str) -> None:
    make_base(tmp_path / "base", seed=0)
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/nowhere/at/all")
    (tmp_path / "disk").mkdir()
    paths = {"file": "file", "file/below": "file/below", "link": "link", "disk/new": "Read-only file system: disk/new"}
    with mounted("-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path / "disk")):
        job = Job(name, tmp_path, environment)
        for (code, output), expected in zip(job.fail_each(*map(FLOWS[name], paths)), paths.values(), strict=True):
            assert code == 1, output
            assert expected in output
            assert "write elsewhere" in output


def damaged_copies(finished: Path, copies: Path) -> Iterator[tuple[Path, Path, bool]]:
    """Yield copies of a finished run in which one file or folder is replaced by another kind.

    Each with the replaced path, and whether the run may repair it without an error.
    """
    for number, replaced in enumerate(sorted(finished.rglob("*"))):
        swaps: dict[str, Callable[[Path], None]] = {"file": Path.touch}
        if not replaced.is_dir():
            swaps = {"folder": Path.mkdir, "pipe": os.mkfifo}
        for name, swap in swaps.items():
            copy = copies / f"{number}_{name}"
            shutil.copytree(finished, copy)
            path = copy / replaced.relative_to(finished)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            swap(path)
            yield copy, path, name == "pipe"


def check(job: Job, cases: list[tuple[list[str], Path, bool]]) -> None:
    results = job.fail_each(*(command for command, _, _ in cases), timeout=500)
    for (code, output), (command, path, may_pass) in zip(results, cases, strict=True):
        assert code == 1 or (may_pass and code == 0), (command, path, output)
        assert code == 0 or path.name in output, (command, path, output)


def test_rejection_sampling_reports_damaged_files(tmp_path: Path, environment: dict[str, str]) -> None:
    job = Job("reject_sampling", tmp_path, environment)
    with ScriptedServer(Script()) as server:
        flags = ["--model_path", "scripted", "--dataset", str(tmp_path / "p.jsonl"), "--num_rollout", "2"]
        flags += ["--base_url", server.base_url]
        done = job.run(*flags, "--model_name", "run")
        assert done.returncode == 0, done.stderr
        cases = damaged_copies(tmp_path / "reject_sampling_results/run", tmp_path / "copies")
        check(
            job,
            [([*flags, "--output_dir", str(at.parent), "--model_name", at.name], *what) for at, *what in cases],
        )


def test_episodes_report_damaged_files(tmp_path: Path, environment: dict[str, str]) -> None:
    job = Job("collect_episodes", tmp_path, environment)
    done = job.run(*TOY, "--output_dir", "run")
    assert done.returncode == 0, done.stderr
    cases = damaged_copies(tmp_path / "run", tmp_path / "copies")
    check(job, [([*TOY, "--output_dir", str(at)], *what) for at, *what in cases])
