"""What Prefect does for a team: everything registered, one GPU shared, schedules, dead workers, cancelling, telling."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from benchmarks.scripted_agents import CONFIG, act
from rollmill.grading.pack import Pack
from rollmill.inference.probe import healthy
from rollmill.inference.script import Conversation, Script
from rollmill.inference.scripted import ScriptedServer
from tests.deployments.conftest import CANCEL_S, FLAGS, FULL, QUICK, WEEKLY, Desk, asked, of_vllm, running
from tests.flows.conftest import ROOT, journal_lines, processes_of
from tests.services.running import marked
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def limits(desk: Desk) -> tuple[int, int]:
    """How many runs each queue lets go on at a time: gpu, cpu."""
    queues = {one["name"]: one["concurrency_limit"] for one in desk.ask("work_pools/local/queues/filter", {})}
    return queues["gpu"], queues["cpu"]


def automation_names(desk: Desk) -> set[str]:
    automations = [one["name"] for one in desk.ask("automations/filter", {})]
    assert len(set(automations)) == len(automations), "registered a second time"
    return {name.removeprefix("rollmill: ") for name in automations if name.startswith("rollmill: ")}


@pytest.fixture(scope="module")
def messages(desk: Desk) -> Iterator[list[str]]:
    """What is told to the notification block `custom-webhook/team`."""
    told: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Told,), {"messages": told}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kind = desk.get("block_types/slug/custom-webhook")["id"]
    [schema, *_] = desk.ask("block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    hook = {"name": "team", "url": f"http://127.0.0.1:{server.server_port}/"}
    hook |= {"json_data": {"told": "{{subject}} {{body}}"}}
    document = {"name": "team", "data": hook, "block_type_id": kind, "block_schema_id": schema["id"]}
    desk.ask("block_documents/", document)
    yield told
    server.shutdown()
    server.server_close()


class Told(BaseHTTPRequestHandler):
    """Takes down what it is told."""

    messages: list[str]

    def do_POST(self) -> None:
        self.messages.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


NOTIFY = "--notify=custom-webhook/team"


@pytest.fixture
def notified(desk: Desk, messages: list[str]) -> list[str]:
    """What people are told, by a desk that tells them."""
    if "tell of failures" not in automation_names(desk):
        desk.up(NOTIFY, *FLAGS)
    return messages


def test_everything_is_registered(desk: Desk) -> None:
    named = {one["name"] for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    deployments = desk.ask("deployments/filter", {})
    assert {one["name"] for one in deployments} == named
    assert all(one["description"] and one["tags"] and one["concurrency_options"] for one in deployments)
    assert not any(schedule["active"] for one in deployments for schedule in one["schedules"])
    assert limits(desk) == (1, 4)
    slugs = {one["slug"] for one in desk.ask("block_types/filter", {})}
    assert {"vllm-server", "inference-endpoint", "dask-cluster", "sandbox-service"} <= slugs
    assert len(automation_names(desk)) == 3


@pytest.mark.usefixtures("messages")
def test_a_second_up_changes_what_it_is_told_and_leaves_on_what_was_switched_on(desk: Desk) -> None:
    before = automation_names(desk)
    weekly = desk.deployment(WEEKLY)
    [schedule] = weekly["schedules"]
    desk.ask(f"deployments/{weekly['id']}/schedules/{schedule['id']}", {"active": True}, method="PATCH")
    said = desk.up("--gpu_runs=1", "--cpu_runs=8", NOTIFY, *FLAGS)
    assert f"export PREFECT_API_URL={desk.url}/api" in said
    assert limits(desk) == (1, 8)
    [schedule] = desk.deployment(WEEKLY)["schedules"]
    assert schedule["active"]
    desk.ask(f"deployments/{weekly['id']}/schedules/{schedule['id']}", {"active": False}, method="PATCH")
    assert automation_names(desk) == before | {"tell of failures", "tell of crashes", "tell of late runs"}


def test_runs_show_what_they_did(desk: Desk, tmp_path: Path) -> None:
    run = desk.start(FULL, **asked(tmp_path, 40))
    assert desk.wait(run)["state"]["type"] == "COMPLETED", desk.logs()
    shown = {one["key"]: one for one in desk.artifacts(run)}
    [progress] = [one for one in shown.values() if one["type"] == "progress"]
    assert progress["data"] == 100
    assert "m: 80/80 rollouts, success" in progress["description"]
    assert "80" in shown["reject-sampling-m-summary"]["data"]
    assert "pass@k" in shown["reject-sampling-m-statistics"]["data"]
    assert "data:image/png;base64" in shown["reject-sampling-m-errors"]["data"]

    run = desk.start("curate/curate", input=[str(tmp_path / "out/m")], output_dir=str(tmp_path / "curated"))
    assert desk.wait(run)["state"]["type"] == "COMPLETED", desk.logs()
    assert "curate-overview" in {one["key"] for one in desk.artifacts(run)}


def test_people_are_told_of_runs_that_fail(desk: Desk, tmp_path: Path, notified: list[str]) -> None:
    failing = desk.start(QUICK, **asked(tmp_path) | {"dataset": str(tmp_path / "none.jsonl")})
    assert desk.wait(failing)["state"]["type"] == "FAILED"
    wait_until(lambda: any("reject-sampling failed" in one for one in notified))
    [told] = [one for one in notified if "reject-sampling failed" in one]
    assert "none.jsonl" in told


def test_the_second_run_waits_for_the_gpu_and_people_are_told_that_it_is_late(
    desk: Desk, tmp_path: Path, notified: list[str]
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with ScriptedServer(Script(model="m", latency_s=5.0)) as server:
        own = {"base_url": [server.base_url], "vllm_args": "", "concurrency": 1}
        first = desk.start(QUICK, **asked(folders[0], 40) | own)
        wait_until(lambda: server.requests, timeout=180)
        second = desk.start(WEEKLY, **asked(folders[1]))
        name = desk.run(second)["name"]
        wait_until(lambda: any("has been late" in one and name in one for one in notified), timeout=180)
        server.script.latency_s = 0.0
        desk.wait(first)
    begun = desk.wait(second)["start_time"]
    assert desk.state(first) == desk.state(second) == "COMPLETED", desk.logs()
    assert begun >= desk.run(first)["end_time"]


def test_a_schedule_fires_and_dates_its_folder(desk: Desk, tmp_path: Path) -> None:
    deployment = desk.deployment(QUICK)
    given = deployment["parameters"]["parameters"] | asked(tmp_path) | {"output_dir": str(tmp_path / "of-{date}")}
    body = [{"schedule": {"interval": 15.0}, "active": True, "parameters": {"parameters": given}, "slug": "soon"}]
    [schedule] = desk.ask(f"deployments/{deployment['id']}/schedules", body)
    try:
        of_it = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_DESC"}

        def fired() -> list[Any]:
            runs = desk.ask("flow_runs/filter", of_it)
            return [run for run in runs if run["auto_scheduled"] and run["state_type"] == "COMPLETED"]

        wait_until(fired, timeout=240, every=0.5)
        [run, *_] = fired()
    finally:
        desk.ask(f"deployments/{deployment['id']}/schedules/{schedule['id']}", method="DELETE")
    day = run["expected_start_time"][:10]
    assert len(journal_lines(tmp_path / f"of-{day}")) == 8
    for late in desk.ask("flow_runs/filter", of_it):
        if late["state_type"] not in {"COMPLETED", "FAILED", "CANCELLED"}:
            desk.wait(late["id"])


def test_a_dead_worker_is_noticed_and_told_of_and_its_run_goes_on_with_another(
    desk: Desk, tmp_path: Path, notified: list[str]
) -> None:
    run = desk.start(FULL, **asked(tmp_path, 15, latency_s=1.5), concurrency=2)
    wait_until(lambda: len(journal_lines(tmp_path / "out")) >= 6, timeout=180)
    workers = running(desk, "worker start --pool")
    for process in [*workers, *(child for worker in workers for child in worker.children(recursive=True))]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    before = journal_lines(tmp_path / "out")
    assert 6 <= len(before) < 30
    wait_until(lambda: of_vllm(desk) == [], timeout=30, every=0.5)
    found = desk.wait(run, "COMPLETED", "FAILED", "CANCELLED", timeout=400)
    assert found["state"]["type"] == "COMPLETED", desk.logs()
    assert found["run_count"] == 2
    assert any("reject-sampling crashed" in one and found["name"] in one for one in notified)
    states = [
        one["name"] for one in sorted(desk.get(f"flow_run_states/?flow_run_id={run}"), key=lambda s: s["timestamp"])
    ]
    assert [name for name in states if name in {"Running", "Crashed", "AwaitingRetry", "Completed"}] == [
        "Running", "Crashed", "AwaitingRetry", "Running", "Completed",
    ]  # fmt: skip
    after = journal_lines(tmp_path / "out")
    assert after[: len(before)] == before
    rollouts = [json.loads(line) for line in after]
    assert len({(one["instance_id"], one["sample_id"]) for one in rollouts}) == len(rollouts) == 30


def test_cancelling_ends_sandboxes(desk: Desk, tmp_path: Path) -> None:
    pack = Pack(ROOT / "examples/performance_problems")
    command, living = marked()
    answers = [act(command)]
    conversations = [Conversation(when=one.problem_statement, answers=answers) for one in pack.problems.values()]
    with ScriptedServer(Script(conversations=conversations)) as server:
        run = desk.start(
            "agent-rollouts/agent-rollouts", model="scripted", base_url=[server.base_url], config=CONFIG, workers=2,
            output=str(tmp_path / "agents.json"), vllm_args="",
        )  # fmt: skip
        wait_until(living, timeout=180, every=0.5)
        # As the button in the UI does it.
        desk.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        wait_until(lambda: not living(), timeout=CANCEL_S, every=0.5)
        assert desk.wait(run)["state"]["type"] == "CANCELLED"


def test_a_dead_server_is_started_again_and_down_ends_everything(tmp_path: Path, desk: Desk) -> None:
    """The last: it ends the desk of the other tests."""
    for process in running(desk, "prefect server start"):
        process.kill()
    wait_until(lambda: not healthy(f"{desk.url}/api"))
    wait_until(lambda: healthy(f"{desk.url}/api"), timeout=300)  # it is started again
    desk.start(FULL, **asked(tmp_path, 400, latency_s=1.0))
    wait_until(lambda: journal_lines(tmp_path / "out"), timeout=180)
    said = desk.command("down", timeout=60)
    assert said.returncode == 0, said.stderr
    assert said.stdout == f"ended; what was recorded stays in {desk.folder}\n"
    assert processes_of(desk.mark) == []
    assert desk.command("down").stdout == "nothing runs\n"
