"""Results on shared storage: a real S3 server, flows as users run them, stores that fail at the wrong time."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.kinds import BLOCKS
from rollmill.inference.script import Script
from rollmill.inference.scripted import ScriptedServer
from tests.files.s3 import S3Server
from tests.flows.conftest import ROOT, Job, journal_lines, script, write_problems
from tests.flows.stores import check_copied, save_blocks
from tests.jobs.training.tiny_models import write_rows
from tests.problems.conftest import make_png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PNG = make_png(1)


@pytest.fixture(scope="module")
def s3(prefect_environment: dict[str, str]) -> Iterator[S3Server]:
    """Start an S3 server; save the blocks `store`, `closed` (a wrong secret) and `nowhere` (no such bucket)."""
    with S3Server() as server:
        fields = {"url": "s3://results/runs", "endpoint_url": server.url, "key": server.key, "secret": server.secret}
        save_blocks(
            prefect_environment,
            ("result-store", "store", fields),
            ("result-store", "closed", fields | {"secret": "canary-wrong"}),
            ("result-store", "nowhere", fields | {"url": "s3://nowhere"}),
        )
        yield server


def only_line(text: str) -> str:
    """Return the last line, which is the error's message; check that there is no traceback."""
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


def test_all_blocks_are_registered(prefect_environment: dict[str, str], s3: S3Server) -> None:
    url = f"{prefect_environment['PREFECT_API_URL']}/block_types/filter"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=30) as response:
        result = {item["slug"]: item["description"] for item in json.loads(response.read())}
    assert {kind.get_block_type_slug(): kind._description for kind in BLOCKS}.items() <= result.items()


def test_checkpoints_are_copied_and_shown(tmp_path: Path, stand_in: dict[str, str], s3: S3Server) -> None:
    """The data set has images and an unusable row."""
    picture = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    problems = [{"question": f"{number}?", "answer": number, "images": [picture]} for number in range(10)]
    write_rows(tmp_path / "problems.jsonl", [*problems, "torn"])
    job = Job("reject_sampling", tmp_path, stand_in)
    models = ("--model_path", "a", "b", "--model_name", "step1", "step2", "--dataset", "problems.jsonl")
    done = job.run(*models, "--num_rollout", "2", "--store_block", "store", *script())
    assert done.returncode == 0, done.stderr
    result = check_copied(s3.objects(), "runs/reject_sampling_results/", tmp_path / "reject_sampling_results")
    files = ["manifest.json", "reject_sampling_results.json", "statistics.txt", "error_distribution.png", "sft.jsonl"]
    files += ["README.md", "rollouts/0001.jsonl", "quarantine.jsonl", f"images/{hashlib.sha256(PNG).hexdigest()}.png"]
    assert result >= {f"{run}/{name}" for run in ("step1", "step2") for name in files}
    assert result >= {"comparison.txt", "comparison.png"}
    for copied in ("/step1", "/step2", ""):
        assert f"copied to s3://results/runs/reject_sampling_results{copied}\n" in done.stdout + done.stderr
    url = f"{job.environment['PREFECT_API_URL']}/artifacts/results-stored/latest"
    with urllib.request.urlopen(url, timeout=30) as response:
        shown = json.loads(response.read())
    stored = "s3://results/runs/reject_sampling_results"
    assert shown["description"].startswith(f"Copied to {stored}")
    assert all(item["file"].startswith(stored) for item in json.loads(shown["data"]))


def test_failing_store_at_the_end_loses_nothing(
    tmp_path: Path, prefect_environment: dict[str, str], s3: S3Server
) -> None:
    write_problems(tmp_path / "problems.jsonl", 8)
    job = Job("reject_sampling", tmp_path, prefect_environment | {"PYTHONPATH": str(ROOT)})
    base = ("--model_path", "scripted", "--model_name", "scripted", "--dataset", "problems.jsonl", "--num_rollout", "2")
    folder = tmp_path / "reject_sampling_results/scripted"
    with ScriptedServer(Script()) as server:
        at = (*base, "--base_url", server.base_url, "--store_block")
        for block, message in (
            ("closed", "correct the key"),
            ("nowhere", "does not exist"),
            ("no", "no block"),
        ):
            refused = job.run(*at, block)
            assert refused.returncode == 1
            assert message in only_line(refused.stderr)
            assert "canary" not in refused.stdout + refused.stderr
        assert server.requests == 0, "a store that cannot be written costs no rollouts"
        s3.closed_to = "statistics.txt"
        failed = job.run(*at, "store")
        s3.closed_to = None
        assert failed.returncode == 1
        message = only_line(failed.stderr)
        assert "the results are in reject_sampling_results/scripted, but could not be copied" in message
        assert message.endswith("run the same command again to copy them")
        assert len(journal_lines(folder)) == 16
        assert (folder / "statistics.txt").exists()
        assert "runs/reject_sampling_results/scripted/manifest.json" not in s3.objects(), (
            "an incomplete copy must have no manifest"
        )
        request_count = server.requests
        again = job.run(*at, "store")
        assert again.returncode == 0, again.stderr
        assert server.requests == request_count
    assert "already complete" in again.stdout
    assert "statistics.txt" in check_copied(s3.objects(), "runs/reject_sampling_results/scripted/", folder)
