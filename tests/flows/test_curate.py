"""The curation flow: its files, artifacts and error messages."""

from __future__ import annotations

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.exports.sample_corpus import lines_of, rollout
from tests.flows.conftest import Job

pytestmark = pytest.mark.slow

ROWS = [
    rollout("p0", 0, 1.0, answer="right"),
    rollout("p0", 1, 1.0, answer="right"),
    rollout("p0", 2, 0.25, answer="wrong"),
    rollout("p1", 0, 0.75, answer="right"),
    {"instance_id": "p1", "sample_id": 1, "reward": None, "error": {"type": "timeout", "message": "m"}},
]


@pytest.fixture
def job(tmp_path: Path, prefect_environment: dict[str, str]) -> Job:
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / "raw.jsonl").write_text("\n".join([*lines, "no JSON"]) + "\n")
    return Job("curate", tmp_path, prefect_environment | {"PYTHONPATH": str(Path(__file__).parents[2])})


def latest_artifact(job: Job, key: str) -> dict[str, Any]:
    """Return the artifact of a key."""
    with urllib.request.urlopen(f"{job.environment['PREFECT_API_URL']}/artifacts/{key}/latest", timeout=30) as response:
        return json.loads(response.read())


def cells(artifact: dict[str, Any]) -> dict[str, str]:
    """Return the rows of a table artifact of two columns."""
    return dict(row.values() for row in json.loads(artifact["data"]))


def test_flow_writes_files_and_artifacts(job: Job) -> None:
    exports = ("--export", "sft", "trajectories", "preferences", "--min-margin", "0.5")
    bad = ("--max_bad_share", "0.2")
    done = job.run("run", "--input", "raw.jsonl", "--output_dir", "out", "--drop-duplicates", *bad, *exports)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "1 row could not be used; they are in out/rollouts.quarantine.jsonl" in done.stderr
    output = done.stdout.splitlines()
    assert output[0] == "kept 4 of 5 rollouts, of 2 problems: out/rollouts.jsonl"
    assert output[1] == "dropped 1 (duplicate_completion 1): out/rollouts.dropped.jsonl"
    assert "train: 3 rows of 2 problems: out/sft.jsonl" in output
    assert "report: out/quality_report.html" in output
    folder = job.folder / "out"
    kept = [row for number, row in enumerate(ROWS) if number != 1]
    assert lines_of(folder / "rollouts.jsonl") == kept
    assert lines_of(folder / "rollouts.dropped.jsonl") == [{**ROWS[1], "drop_reason": "duplicate_completion"}]
    assert [row["row"] for row in lines_of(folder / "rollouts.quarantine.jsonl")] == [6]
    assert [row["metadata"]["sample_id"] for row in lines_of(folder / "sft.jsonl")] == [0, 2, 0]
    assert len(lines_of(folder / "trajectories.jsonl")) == 3
    assert [row["metadata"]["margin"] for row in lines_of(folder / "preferences.jsonl")] == [0.75]
    card = (folder / "README.md").read_text()
    assert [name for name in ("sft", "trajectories", "preferences") if f"\n## {name}\n" in card] == [
        "sft",
        "trajectories",
        "preferences",
    ]
    assert (folder / "quality_report.html").read_text().startswith("<!")
    analysis = latest_artifact(job, "curate-analysis")
    assert analysis["type"] == "table"
    assert analysis["description"] == "Rollouts of raw.jsonl"
    assert cells(latest_artifact(job, "curate-filter")) == {"kept": "4", "dropped: duplicate_completion": "1"}
    assert cells(latest_artifact(job, "curate-export-sft")) == {
        "used": "3",
        "dropped: duplicate_completion": "1",
        "dropped: failed": "1",
    }
    assert "raw.jsonl" in latest_artifact(job, "curate-analysis-text")["data"]
    picture = latest_artifact(job, "curate-overview")["data"].split("base64,")[1].strip("\")'> ")
    assert base64.b64decode(picture) == (folder / "overview.png").read_bytes()


def test_without_report_and_exports(job: Job) -> None:
    argv = ("--input", "raw.jsonl", "--output_dir", "bare", "--no_report", "--dropped", "places", "--min_reward", "0.5")
    done = job.run("run", *argv, "--max_bad_share", "0.2", "--export", "trajectories")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (job.folder / "bare").iterdir()) == [
        "README.md",
        "rollouts.dropped.jsonl",
        "rollouts.jsonl",
        "rollouts.quarantine.jsonl",
        "trajectories.dropped.jsonl",
        "trajectories.jsonl",
        "trajectories.quarantine.jsonl",
    ]
    assert lines_of(job.folder / "bare" / "rollouts.dropped.jsonl")[0]["drop_reason"] == "reward_below_min"


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (("--input", "nowhere.json"), "nowhere.json: there is no such file or folder"),
        (("--input", "raw.jsonl", "--output_dir", "raw.jsonl"), "raw.jsonl"),
    ],
)
def test_mistakes_are_one_line(job: Job, arguments: tuple[str, ...], output: str) -> None:
    failed = job.run("run", *arguments)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stdout + failed.stderr
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("curate: ")
    assert output in last
