"""What Prefect does for a team: everything registered, one GPU shared, schedules, dead workers, cancelling, telling."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from benchmarks.scripted_agents import CONFIG, act
from rollmill.grading.pack import Pack
from rollmill.serving.probe import healthy
from rollmill.serving.script import Conversation, Script
from rollmill.serving.scripted import ScriptedServer
from tests.deployments.conftest import CANCEL_S, FULL, QUICK, WEEKLY, Desk, asked, of_vllm, running
from tests.flows.conftest import ROOT, journal_lines, processes_of
from tests.services.running import marked
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def limits(desk: Desk) -> tuple[int, int]:
    """How many runs each queue lets go on at a time: gpu, cpu."""
    queues = {one["name"]: one["concurrency_limit"] for one in desk.ask("work_pools/local/queues/filter", {})}
    return queues["gpu"], queues["cpu"]


def test_everything_is_registered_and_what_was_switched_on_stays_on(desk: Desk) -> None:
    named = {one["name"] for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    deployments = desk.ask("deployments/filter", {})
    assert {one["name"] for one in deployments} == named
    assert all(one["description"] and one["tags"] and one["concurrency_options"] for one in deployments)
    assert not any(schedule["active"] for one in deployments for schedule in one["schedules"])
    assert limits(desk) == (1, 4)
    names = {one["name"] for one in desk.ask("automations/filter", {}) if one["name"].startswith("rollmill: ")}
    assert len(names) == 3
    slugs = {one["slug"] for one in desk.ask("block_types/filter", {})}
    assert {"vllm-server", "inference-endpoint", "dask-cluster", "sandbox-service"} <= slugs

    weekly = desk.deployment(WEEKLY)
    [schedule] = weekly["schedules"]
    desk.ask(f"deployments/{weekly['id']}/schedules/{schedule['id']}", {"active": True}, method="PATCH")
    said = desk.up("--gpu_runs=1", "--cpu_runs=8", "--silent_s=45", "--late_s=10")
    assert f"export PREFECT_API_URL={desk.url}/api" in said
    assert limits(desk) == (1, 8)
    [schedule] = desk.deployment(WEEKLY)["schedules"]
    assert schedule["active"]
    desk.ask(f"deployments/{weekly['id']}/schedules/{schedule['id']}", {"active": False}, method="PATCH")
    assert len(desk.ask("automations/filter", {})) == len(names)


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


def test_the_second_run_waits_for_the_gpu(desk: Desk, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first = desk.start(QUICK, **asked(folders[0], latency_s=3.0))
    wait_until(lambda: of_vllm(desk), timeout=120)
    second = desk.start(WEEKLY, **asked(folders[1]))
    desk.wait(first)
    begun = desk.wait(second)["start_time"]
    assert desk.state(first) == desk.state(second) == "COMPLETED", desk.logs()
    assert begun >= desk.run(first)["end_time"]


def test_a_schedule_fires_and_dates_its_folder(desk: Desk, tmp_path: Path) -> None:
    deployment = desk.deployment(QUICK)
    given = deployment["parameters"]["parameters"] | asked(tmp_path) | {"output_dir": str(tmp_path / "of-{date}")}
    body = [{"schedule": {"interval": 20.0}, "active": True, "parameters": {"parameters": given}, "slug": "soon"}]
    [schedule] = desk.ask(f"deployments/{deployment['id']}/schedules", body)
    try:
        of_it = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_DESC"}

        def fired() -> list[Any]:
            runs = desk.ask("flow_runs/filter", of_it)
            return [run for run in runs if run["auto_scheduled"] and run["state_type"] == "COMPLETED"]

        wait_until(fired, timeout=240)
        [run, *_] = fired()
    finally:
        desk.ask(f"deployments/{deployment['id']}/schedules/{schedule['id']}", method="DELETE")
    day = run["expected_start_time"][:10]
    assert len(journal_lines(tmp_path / f"of-{day}")) == 8
    for late in desk.ask("flow_runs/filter", of_it):
        if late["state_type"] not in {"COMPLETED", "FAILED", "CANCELLED"}:
            desk.wait(late["id"])


def test_a_dead_worker_is_noticed_and_its_run_goes_on_with_another(desk: Desk, tmp_path: Path) -> None:
    run = desk.start(FULL, **asked(tmp_path, 40, latency_s=2.0), concurrency=2)
    wait_until(lambda: len(journal_lines(tmp_path / "out")) >= 8, timeout=180)
    workers = running(desk, "worker start --pool")
    for process in [*workers, *(child for worker in workers for child in worker.children(recursive=True))]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    before = journal_lines(tmp_path / "out")
    assert 8 <= len(before) < 80
    wait_until(lambda: of_vllm(desk) == [], timeout=30)
    found = desk.wait(run, "COMPLETED", "FAILED", "CANCELLED", timeout=400)
    assert found["state"]["type"] == "COMPLETED", desk.logs()
    assert found["run_count"] == 2
    states = [
        one["name"] for one in sorted(desk.get(f"flow_run_states/?flow_run_id={run}"), key=lambda s: s["timestamp"])
    ]
    assert [name for name in states if name in {"Running", "Crashed", "AwaitingRetry", "Completed"}] == [
        "Running", "Crashed", "AwaitingRetry", "Running", "Completed",
    ]  # fmt: skip
    after = journal_lines(tmp_path / "out")
    assert after[: len(before)] == before
    rollouts = [json.loads(line) for line in after]
    assert len({(one["instance_id"], one["sample_id"]) for one in rollouts}) == len(rollouts) == 80


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
        wait_until(living, timeout=180)
        cancel(desk, run)
        wait_until(lambda: not living(), timeout=CANCEL_S)
        assert desk.wait(run)["state"]["type"] == "CANCELLED"


def cancel(desk: Desk, run: str) -> None:
    """As the button in the UI does it."""
    desk.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})


class Told(BaseHTTPRequestHandler):
    """Takes down what it is told."""

    messages: list[str]

    def do_POST(self) -> None:
        self.messages.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_people_are_told_of_runs_that_fail_or_are_late(desk: Desk, tmp_path: Path) -> None:
    messages: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Told,), {"messages": messages}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    save = (
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Hook;"
        f"Hook(name='team', url='http://127.0.0.1:{server.server_port}/',"
        "json_data={'told': '{{subject}} {{body}}'}).save('team')"
    )
    environment = desk.environment | {"PREFECT_API_URL": f"{desk.url}/api", "PREFECT_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", save], env=environment, check=True, timeout=120)
    try:
        desk.up("--notify=custom-webhook/team", "--silent_s=45", "--late_s=10")
        failing = desk.start(QUICK, **asked(tmp_path) | {"dataset": str(tmp_path / "none.jsonl")})
        assert desk.wait(failing)["state"]["type"] == "FAILED"
        wait_until(lambda: any("reject-sampling failed" in one for one in messages), timeout=60)
        [told] = [one for one in messages if "reject-sampling failed" in one]
        assert "none.jsonl" in told
        # Longer than the wait below: a second run that gets the GPU in time is never late.
        first = desk.start(QUICK, **asked(tmp_path, 40, latency_s=10.0), concurrency=2)
        desk.wait(first, "RUNNING")
        late = desk.start(WEEKLY, **asked(tmp_path))
        wait_until(lambda: any("has been late" in one for one in messages), timeout=180)
        cancel(desk, first)
        desk.ask(f"flow_runs/{late}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
        desk.wait(first)
    finally:
        server.shutdown()
        server.server_close()


def test_a_dead_server_is_started_again_and_down_ends_everything(tmp_path: Path, desk: Desk) -> None:
    """The last: it ends the desk of the other tests."""
    for process in running(desk, "prefect server start"):
        process.kill()
    wait_until(lambda: not healthy(f"{desk.url}/api"))
    wait_until(lambda: healthy(f"{desk.url}/api"), timeout=300)  # it is started again
    desk.start(FULL, **asked(tmp_path, 400, latency_s=1.0))
    wait_until(lambda: journal_lines(tmp_path / "out"), timeout=180)
    began = time.monotonic()
    said = desk.command("down")
    assert said.returncode == 0, said.stderr
    assert said.stdout == f"ended; what was recorded stays in {desk.folder}\n"
    assert time.monotonic() - began < 60
    assert processes_of(desk.mark) == []
    assert desk.command("down").stdout == "nothing runs\n"
