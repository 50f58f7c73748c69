"""The agent rollouts flow: scripted agents of known outcome in real sandboxes, with real grading."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scripted_agents import CONFIG, SUBMIT, act, does, script_of
from rollmill.grading.pack import Pack
from rollmill.inference.ports import PortReservation
from rollmill.inference.probe import healthy
from rollmill.inference.script import Conversation, Script
from rollmill.inference.scripted import ScriptedServer
from rollmill.inference.supervised_process import SupervisedProcess
from rollmill.sandboxes.images import copy_image
from tests.flows.conftest import ROOT, Job, journal_lines, processes_of
from tests.flows.test_cluster import cluster_in
from tests.flows.test_many_machines import REGISTERED, count_in_log, dask_process, rollouts_by_worker
from tests.sandboxes.engine import import_image, shared_engine
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FOLDER = ROOT / "examples/performance_problems"
DOCUMENT_KEYS = {
    "instance_id", "sample_id", "problem_statement", "messages", "git_diff", "exit_status", "reward", "speedup",
    "success", "model_calls", "evaluation_info", "error", "metadata",
}  # fmt: skip


@pytest.fixture
def job(tmp_path: Path, sandboxes: Path, prefect_environment: dict[str, str]) -> Job:
    return Job("agent_rollouts", tmp_path, prefect_environment | {"PYTHONPATH": str(ROOT), "TMPDIR": str(sandboxes)})


def flags(url: str, *more: str, output: str = "out.json", samples: int = 4, tasks: int = 2) -> list[str]:
    sampling = ["--samples-per-task", str(samples), "--max-tasks", str(tasks), "--max-tokens", "900", "--workers", "2"]
    where = ["--dataset", str(FOLDER / "dataset.json"), "--output", output]
    return ["generate-multi", "--model", "scripted", "--base-url", url, "--config", CONFIG, *where, *sampling, *more]


def document(job: Job, name: str = "out.json") -> dict[str, Any]:
    result: dict[str, Any] = json.loads((job.folder / name).read_text())
    return result


def check_outcomes(examples: list[dict[str, Any]], tasks: int, samples: int) -> None:
    expected = list(Pack(FOLDER).problems)[:tasks]
    assert [(item["instance_id"], item["sample_id"]) for item in examples] == [
        (instance, sample) for instance in expected for sample in range(samples)
    ]
    for item in examples:
        deed, phase = does(0, item["instance_id"], item["sample_id"]), (item["evaluation_info"] or {}).get("phase")
        assert item["error"] is None
        assert item["exit_status"] == "Submitted"
        assert item["success"] == (deed == "good"), (item["instance_id"], deed, item["evaluation_info"])
        assert (item["reward"] > 0) == (deed == "good")
        assert bool(item["git_diff"]) == (deed not in {"nothing", "forbidden"})
        if deed in {"nothing", "forbidden"}:
            assert phase == "git_precheck"
        if deed == "wrong":
            assert phase in {"test", "benchmark"}


def test_known_outcomes_and_the_document_format(job: Job, sandboxes: Path) -> None:
    with ScriptedServer(script_of(Pack(FOLDER))) as server:
        done = job.run(*flags(server.base_url), timeout=300, VLLM_API_KEY="k-canary-1")
        assert done.returncode == 0, done.stderr
        request_count = server.requests
        again = job.run(*flags(server.base_url), "--api-key", "k-canary-2", timeout=120)
        assert again.returncode == 0, again.stderr
        assert server.requests == request_count
    assert "already complete, nothing was generated" in again.stdout
    assert "Flow run" not in again.stderr
    result = document(job)
    assert set(result) == {"metadata", "examples", "summary"}
    check_outcomes(result["examples"], 2, 4)
    assert all(set(item) >= DOCUMENT_KEYS for item in result["examples"])
    good = sum(bool(item["success"]) for item in result["examples"])
    assert 0 < good < 8
    assert result["summary"]["successful"] == good
    assert result["metadata"]["total_samples"] == 8
    assert result["metadata"]["samples_per_task"] == 4
    for path in [*job.folder.rglob("*.json"), *job.folder.rglob("*.jsonl"), *job.folder.rglob("*.txt")]:
        assert b"k-canary" not in path.read_bytes(), path
    assert processes_of(str(sandboxes)) == []
    curate = Job("curate", job.folder, job.environment)
    kept = curate.run("filter_data", "--input", "out.json", "--output", "good.json", "--successful-only")
    assert kept.returncode == 0, kept.stderr
    assert len(document(job, "good.json")["examples"]) == good
    exported = curate.run("export_sft", "--input", "good.json", "--output", "sft.jsonl")
    assert exported.returncode == 0, exported.stderr
    rows = [json.loads(line) for line in (job.folder / "sft.jsonl").read_text().splitlines()]
    assert len(rows) == good
    assert [turn["role"] for turn in rows[0]["messages"][:3]] == ["system", "user", "assistant"]


def test_killed_run_resumes_without_repeats_to_the_same_result(job: Job, sandboxes: Path) -> None:
    with ScriptedServer(script_of(Pack(FOLDER), latency_s=0.2)) as server:
        journal = job.folder / "out/rollouts/0001.jsonl"
        process = job.start(*flags(server.base_url))
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 2, timeout=200)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        wait_until(lambda: processes_of(str(sandboxes)) == [], timeout=30)
        before = journal_lines(job.folder)
        assert 2 <= len(before) < 8
        done = job.run(*flags(server.base_url), timeout=300)
    assert done.returncode == 0, done.stderr
    after = journal_lines(job.folder)
    assert after[: len(before)] == before
    assert len(after) == 8
    check_outcomes(document(job)["examples"], 2, 4)
    assert not list(sandboxes.glob("*/*/work")), "sandboxes were left"


def has_sandbox(sandboxes: Path, pid: int) -> bool:
    """Return whether a process has a sandbox."""
    with suppress(FileNotFoundError):  # hosts come and go
        owners = [owner for owner in sandboxes.glob("*/*/owner.json") if f'"pid":{pid}}}' in owner.read_text()]
        return any(list(owner.parent.glob("*/work")) for owner in owners)
    return False


def test_run_on_several_workers_survives_a_killed_one(job: Job, sandboxes: Path) -> None:
    agents = script_of(Pack(FOLDER), ["nothing"], latency_s=0.3)
    with ScriptedServer(agents) as server, cluster_in(job.folder / "cluster", job.environment) as cluster:
        workers = [cluster.start_worker("GPU=1", "--no-nanny", threads=4) for _ in range(2)]
        first = job.run(*flags(server.base_url, "--gpu_workers", "2", samples=1), timeout=300)
        assert first.returncode == 0, first.stderr
        assert sum(rollouts_by_worker(first.stderr).values()) == 2
        wait_until(lambda: count_in_log(cluster.folder / "worker.log", REGISTERED) == 2, timeout=200)
        before, others = journal_lines(job.folder), {process.pid for process in processes_of(str(sandboxes))}
        assert len(before) == 2

        process = job.start(*flags(server.base_url, "--cluster-block", cluster.block))
        pids = [dask_process(worker).pid for worker in workers]
        wait_until(lambda: any(has_sandbox(sandboxes, pid) for pid in pids) or process.poll() is not None, timeout=200)
        assert process.poll() is None, process.communicate()
        os.kill(next(pid for pid in pids if has_sandbox(sandboxes, pid)), signal.SIGKILL)
        _, printed = process.communicate(timeout=300)
        assert process.returncode == 0, printed
        left = [process for process in processes_of(str(sandboxes)) if process.pid not in others]
    assert left == []  # the run has ended, though the other worker still ran
    after = journal_lines(job.folder)
    assert after[:2] == before
    assert len(after) == 8
    assert sum(rollouts_by_worker(printed).values()) == 6
    examples = document(job)["examples"]
    expected = [(instance, sample) for instance in list(Pack(FOLDER).problems)[:2] for sample in range(4)]
    assert [(item["instance_id"], item["sample_id"]) for item in examples] == expected
    assert [(item["error"], item["reward"]) for item in examples] == [(None, 0.0)] * 8


@contextmanager
def service(name: str, *arguments: str, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """Start a service on a free port; yield its address."""
    port = PortReservation(None)
    command = [sys.executable, "-m", f"rollmill.services.{name}", "--port", str(port.port), *arguments]
    process = SupervisedProcess(command, log=log, environment=environment)
    try:
        wait_until(lambda: healthy(f"http://127.0.0.1:{port.port}") or process.returncode is not None)
        assert process.returncode is None, log.read_text()
        yield f"127.0.0.1:{port.port}"
    finally:
        process.end()
        port.release()


def test_known_outcomes_over_both_services(job: Job) -> None:
    tokens = {"ROLLMILL_SANDBOX_TOKEN": "t-1", "ROLLMILL_EVALUATION_TOKEN": "t-2"}
    environment = os.environ | tokens | {"PYTHONPATH": str(ROOT), "TMPDIR": job.environment["TMPDIR"]}
    images = ["--images", str(FOLDER / "images")]
    starting = service("sandbox", *images, log=job.folder / "sandbox.log", environment=environment)
    with starting as sandbox_address, ScriptedServer(script_of(Pack(FOLDER))) as server:
        options = ["--sandbox_server", sandbox_address, "--dataset", str(FOLDER / "dataset.json")]
        with service(
            "evaluation", *options, log=job.folder / "evaluation.log", environment=environment
        ) as evaluation_address:
            remote = ["--docker-server", sandbox_address, "--eval-server", evaluation_address]
            done = job.run(*flags(server.base_url, *remote), timeout=400, **tokens)
            assert done.returncode == 0, done.stderr
            refused = job.run(*flags(server.base_url, *remote, output="other.json", tasks=1, samples=1), timeout=120)
    check_outcomes(document(job)["examples"], 2, 4)
    assert refused.returncode == 1
    assert "token" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.docker
def test_known_outcome_on_a_docker_engine(job: Job, sandboxes: Path, request: pytest.FixtureRequest) -> None:
    engine, image = shared_engine(request.config), "rollmill-test-problem:1"
    problem = next(iter(Pack(FOLDER).problems.values()))
    copy_image(FOLDER / "images" / problem.image_name, sandboxes / "tree")
    dataset = job.folder / "dataset.json"
    dataset.write_text(json.dumps([problem.model_dump() | {"image_name": image}]))
    import_image(engine, sandboxes / "tree", image)
    with ScriptedServer(script_of(Pack(FOLDER))) as server:
        where = ["--sandbox", "docker", "--dataset", str(dataset)]
        done = job.run(*flags(server.base_url, *where, tasks=1), timeout=400, DOCKER_HOST=engine)
        assert done.returncode == 0, done.stderr
        left = subprocess.run(["docker", "-H", engine, "ps", "-aq"], capture_output=True, check=True).stdout
    check_outcomes(document(job)["examples"], 1, 4)
    assert left == b""


def test_errors_of_agents_are_their_exit_status(job: Job) -> None:
    problem = next(iter(Pack(FOLDER).problems.values()))
    endless = Conversation(when=problem.problem_statement, answers=[act("yes | head -c 3000000; false")])
    with ScriptedServer(Script(conversations=[endless])) as server:
        dataset = ["--dataset", str(FOLDER / "dataset.json"), "--instance", problem.instance_id, "--output", "one.json"]
        agent = ["--model", "scripted", "--base-url", server.base_url, "--config", CONFIG, "--step_limit", "3"]
        done = job.run("generate_single", *dataset, *agent, timeout=120)
        assert done.returncode == 0, done.stderr
    [example] = document(job, "one.json")["examples"]
    assert example["exit_status"] == "LimitsExceeded"
    assert example["model_calls"] == 3
    assert (example["success"], example["reward"], example["git_diff"]) == (False, 0.0, "")
    assert max(len(str(turn["content"])) for turn in example["messages"]) < 30_000
    alone = job.folder / "alone.json"
    alone.write_text(json.dumps(json.loads((FOLDER / "dataset.json").read_text())[0]))
    with ScriptedServer(Script(completion=act(SUBMIT))) as server:
        agent = ["--model", "scripted", "--base-url", server.base_url, "--config", CONFIG]
        images = ["--images", str(FOLDER / "images"), "--output", "two.json", "--log-file", "logged/two.log"]
        done = job.run("generate-single", "--instance", str(alone), *agent, *images, timeout=120)
        assert done.returncode == 0, done.stderr
    assert document(job, "two.json")["examples"][0]["exit_status"] == "Submitted"
    assert "1 rollouts: 1 ok, 0 unparseable, 0 failed" in (job.folder / "logged/two.log").read_text()


def test_server_failures_are_recorded_without_rewards(job: Job) -> None:
    with ScriptedServer(Script(always="400")) as server:
        done = job.run(*flags(server.base_url, samples=1), timeout=120)
    assert done.returncode == 1
    assert "all 2 rollouts failed: 2 x http_400: " in done.stderr
    examples = document(job)["examples"]
    assert [(item["reward"], item["success"], item["error"]["type"]) for item in examples] == [
        (None, None, "http_400")
    ] * 2
    with ScriptedServer(script_of(Pack(FOLDER), ["nothing"])) as server:
        done = job.run(*flags(server.base_url, "--retry", "failed", samples=1), timeout=120)
        assert done.returncode == 0, done.stderr
    assert [(item["reward"], item["error"]) for item in document(job)["examples"]] == [(0.0, None)] * 2


def test_example_scripts_accept_more_flags(job: Job) -> None:
    for script in sorted((ROOT / "examples").glob("generate_*_dataset.sh")):
        with ScriptedServer(Script(completion=act(SUBMIT))) as server:
            more = ["--base-url", server.base_url, "--config", CONFIG, "--max-tasks", "1", "--samples-per-task", "2"]
            extra = {"MODEL": "scripted", "OUTPUT": str(job.folder / f"{script.stem}.json"), "WORKERS": "2"}
            done = subprocess.run(
                [script, *more], env=job.environment | extra, capture_output=True, text=True, timeout=120
            )
        assert done.returncode == 0, done.stderr
        assert document(job, f"{script.stem}.json")["summary"]["total_examples"] == 2


MISTAKES = [
    (["--temperature", "0"], "--num_rollout 4 at --temperature 0 gives the same attempt again"),
    (["--images", "nowhere"], "nowhere: no such folder"),
    (["--instance", "nobody"], "has no problem of this instance_id"),
    (["--config", "nothing.yaml"], "nothing.yaml"),
    (["--eval-server", "127.0.0.1:9"], "give --sandbox_server, too"),
    (["--ladder", "steep"], "steep"),
]


def test_mistakes_are_one_line(job: Job) -> None:
    with ScriptedServer(Script()) as server:
        options = [flags(server.base_url, *more, output=f"out_{at}.json") for at, (more, _) in enumerate(MISTAKES)]
        for (code, line), (_, message) in zip(job.fail_each(*options), MISTAKES, strict=True):
            assert code in (1, 2)
            assert message in line
