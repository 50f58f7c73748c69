"""Something else stands where a job has its files: each is one line that names it, and nothing hangs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollmill.serving.scripted import Script, ScriptedServer
from tests.flows.conftest import ROOT, Job, write_problems

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def environment(prefect_environment: dict[str, str]) -> dict[str, str]:
    return prefect_environment | {"PYTHONPATH": str(ROOT)}


def in_the_way(finished: Path, copies: Path) -> Iterator[tuple[Path, Path, bool]]:
    """Copies of a finished run with one thing that is not what it should be.

    Yields the copy, what it is that is wrong there, and whether it may be put right without a word.
    """
    for number, there in enumerate(sorted(finished.rglob("*"))):
        swaps: dict[str, Callable[[Path], None]] = {"file": Path.touch}
        if not there.is_dir():
            swaps = {"folder": Path.mkdir, "pipe": os.mkfifo, "link": lambda path: path.symlink_to("/nowhere/at/all")}
        for name, swap in swaps.items():
            copy = copies / f"{number}_{name}"
            shutil.copytree(finished, copy)
            place = copy / there.relative_to(finished)
            shutil.rmtree(place) if place.is_dir() else place.unlink()
            swap(place)
            yield copy, place, name in ("pipe", "link")


def check(job: Job, asked: list[tuple[list[str], Path, bool]]) -> None:
    results = job.fail_each(*(command for command, _, _ in asked), timeout=500)
    for (code, said), (command, place, may_pass) in zip(results, asked, strict=True):
        assert code == 1 or (may_pass and code == 0), (command, place, said)
        assert code == 0 or place.name in said, (command, place, said)


def test_rejection_sampling(tmp_path: Path, environment: dict[str, str]) -> None:
    job = Job("reject_sampling", tmp_path, environment)
    write_problems(tmp_path / "problems.jsonl", 2)
    with ScriptedServer(Script()) as server:
        flags = ["--model_path", "scripted", "--dataset", str(tmp_path / "problems.jsonl"), "--num_rollout", "2"]
        flags += ["--base_url", server.base_url]
        done = job.run(*flags, "--model_name", "run")
        assert done.returncode == 0, done.stderr
        finished = tmp_path / "reject_sampling_results/run"
        cases = in_the_way(finished, tmp_path / "copies")
        check(job, [([*flags, "--output_dir", str(copy.parent), "--model_name", copy.name], *more) for copy, *more in cases])


def test_episodes(tmp_path: Path, environment: dict[str, str]) -> None:
    job = Job("collect_episodes", tmp_path, environment)
    flags = ["--env_name", "tests.episodes.toy:ToyEnvironment", "--model_path", "oracle", "--num_episodes", "4"]
    done = job.run(*flags, "--output_dir", "run", MARK=str(tmp_path))
    assert done.returncode == 0, done.stderr
    cases = in_the_way(tmp_path / "run", tmp_path / "copies")
    check(job, [([*flags, "--output_dir", str(copy)], *more) for copy, *more in cases])
