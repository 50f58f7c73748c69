"""A generating job is three files: `new_job` has a model of parameters, a subclass of `GenerationJob`, and a flow."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rollmill.inference.script import Script
from rollmill.inference.scripted import ScriptedServer
from tests.flows.conftest import Job

pytestmark = pytest.mark.slow


class NewJob(Job):
    def command(self, *arguments: str, python: str = sys.executable) -> list[str]:
        return [python, "-m", "tests.flows.new_job.flow", *arguments]


def paraphrases(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "paraphrases/paraphrases.jsonl").read_text().splitlines()]


def test_new_job_runs_locally_resumes_and_runs_on_workers(stand_in: dict[str, str], tmp_path: Path) -> None:
    job = NewJob("paraphrase", tmp_path, stand_in)
    (tmp_path / "questions.jsonl").write_text('{"question": "How far?"}\n{"question": "How long?"}\n')
    with ScriptedServer(Script(completion="Well?", model="m")) as server:
        call = ["--dataset", "questions.jsonl", "--model", "m", "--base_url", server.base_url, "--concurrency", "4"]
        local = job.run(*call, "--num_rollout", "2")
        assert local.returncode == 0, local.stderr
        assert local.stdout.splitlines()[0] == "4 paraphrases"
        more = job.run(*call, "--num_rollout", "5", "--gpu_workers", "2")
        assert more.returncode == 0, more.stderr
        assert [row["paraphrases"] for row in paraphrases(tmp_path)] == [["Well?"] * 5] * 2
        assert server.requests == 10
    again = job.run(*call, "--num_rollout", "5", "--gpu_workers", "2")
    assert again.stdout.splitlines()[:2] == ["10 paraphrases", "already complete, nothing was generated"]
