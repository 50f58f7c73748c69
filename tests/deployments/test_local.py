"""Ends of runs in a local deployment: dead workers, cancelling, a dead server, `down`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.scripted_agents import CONFIG, act
from rollmill.grading.pack import Pack
from rollmill.inference.probe import healthy
from rollmill.inference.script import Conversation, Script
from rollmill.inference.scripted import ScriptedServer
from tests.deployments.conftest import (
    CANCEL_S,
    FULL,
    Desk,
    find_processes,
    run_parameters,
    running_desk,
    vllm_processes,
)
from tests.flows.conftest import ROOT, journal_lines, processes_of
from tests.services.running import marked
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Start a desk with ordinary interpreters, as users have them."""
    with running_desk(Desk(tmp_path_factory.mktemp("desk"))) as desk:
        yield desk


def test_dead_worker_is_reported_and_its_run_continues_on_another(
    desk: Desk, tmp_path: Path, notified: list[str]
) -> None:
    run = desk.start(FULL, **run_parameters(tmp_path, 15, latency_s=1.5), concurrency=2)
    wait_until(lambda: len(journal_lines(tmp_path / "out")) >= 6, timeout=180)
    workers = find_processes(desk, "worker start --pool")
    for process in [*workers, *(child for worker in workers for child in worker.children(recursive=True))]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    before = journal_lines(tmp_path / "out")
    assert 6 <= len(before) < 30
    wait_until(lambda: vllm_processes(desk) == [], timeout=30, every=0.5)
    finished = desk.wait(run, "COMPLETED", "FAILED", "CANCELLED", timeout=400)
    assert finished["state"]["type"] == "COMPLETED", desk.logs()
    assert finished["run_count"] == 2
    assert any("reject-sampling crashed" in entry and finished["name"] in entry for entry in notified)
    states = [
        entry["name"] for entry in sorted(desk.get(f"flow_run_states/?flow_run_id={run}"), key=lambda s: s["timestamp"])
    ]
    assert [name for name in states if name in {"Running", "Crashed", "AwaitingRetry", "Completed"}] == [
        "Running", "Crashed", "AwaitingRetry", "Running", "Completed",
    ]  # fmt: skip
    after = journal_lines(tmp_path / "out")
    assert after[: len(before)] == before
    rollouts = [json.loads(line) for line in after]
    assert len({(entry["instance_id"], entry["sample_id"]) for entry in rollouts}) == len(rollouts) == 30


def test_cancelling_ends_sandboxes(desk: Desk, tmp_path: Path) -> None:
    pack = Pack(ROOT / "examples/performance_problems")
    command, living = marked()
    answers = [act(command)]
    conversations = [Conversation(when=entry.problem_statement, answers=answers) for entry in pack.problems.values()]
    with ScriptedServer(Script(conversations=conversations)) as server:
        run = desk.start(
            "agent-rollouts/agent-rollouts", model_path="scripted", base_url=[server.base_url], config=CONFIG,
            concurrency=2, output=str(tmp_path / "agents.json"), vllm_args="",
        )  # fmt: skip
        wait_until(living, timeout=180, every=0.5)
        # As the button in the UI does it.
        desk.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        wait_until(lambda: not living(), timeout=CANCEL_S, every=0.5)
        assert desk.wait(run)["state"]["type"] == "CANCELLED"


def test_dead_server_is_restarted_and_down_ends_everything(tmp_path: Path, desk: Desk) -> None:
    """Must run last: it ends the desk of the other tests."""
    for process in find_processes(desk, "prefect server start"):
        process.kill()
    wait_until(lambda: not healthy(f"{desk.url}/api"))
    wait_until(lambda: healthy(f"{desk.url}/api"), timeout=300)  # it is started again
    desk.start(FULL, **run_parameters(tmp_path, 400, latency_s=1.0), concurrency=2)
    wait_until(lambda: journal_lines(tmp_path / "out"), timeout=180)
    output = desk.command("down", timeout=60)
    assert output.returncode == 0, output.stderr
    assert output.stdout == f"ended; what was recorded stays in {desk.folder}\n"
    assert processes_of(desk.mark) == []
    assert desk.command("down").stdout == "nothing runs\n"
