"""A local deployment as `make up` starts it, with the scripted server instead of vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from rollmill.inference.ports import PortReservation
from tests.deployments.commands import all_help
from tests.flows.conftest import (
    ROOT,
    end_prepared,
    prefect_environment,
    prepared,
    processes_of,
    stand_in,
    write_problems,
)
from tests.waiting import wait_until

__all__ = ["end_prepared", "prefect_environment", "stand_in"]

QUICK, WEEKLY, FULL = (f"reject-sampling/reject-sampling{name}" for name in ("-quick", "-weekly", ""))
FLAGS = ("--silent_s=45", "--late_s=10")
"""The shortest times that `up` accepts."""
NOTIFY = "--notify=custom-webhook/team"
CANCEL_S = 15
"""Seconds within which the processes of a cancelled run end."""
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SHORT = {
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "PT10S",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT2S",
}
"""Intervals in which Prefect looks for runs to start, late and dead runs (by default 5 to 30 s), and how far ahead it
plans schedules (by default an hour)."""


class Desk:
    """Runs `python -m deployments.local` in a separate folder, and calls its Prefect API."""

    def __init__(self, folder: Path, python: str | Path = sys.executable) -> None:
        self.folder = folder
        self.python = str(python)
        self.mark = uuid.uuid4().hex
        reservation = PortReservation(None)
        self.port = reservation.port
        reservation.release()
        self.url = f"http://127.0.0.1:{self.port}"
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests/flows/stand_in")])
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
            **SHORT,
            "ROLLMILL_VLLM_PYTHON": sys.executable,
            "ROLLMILL_KIND": "cpu",
            "PYTHONPATH": path,
            "ROLLMILL_TEST": self.mark,
        }

    def command(
        self, *arguments: str, timeout: float = 500, python: str | Path = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `up` or `down`."""
        return subprocess.run(
            [python or self.python, "-m", "deployments.local", *arguments, f"--folder={self.folder}"],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def up(self, *arguments: str, python: str | Path = "") -> str:
        done = self.command("up", f"--port={self.port}", *arguments, python=python)
        assert done.returncode == 0, done.stderr + self.logs()
        return done.stdout

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in self.folder.glob("*.log"))

    def ask(self, path: str, body: Any = None, *, method: str = "POST") -> Any:
        """Call Prefect's API. Repeat the call while it answers 503, which means that its database is busy."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            at = f"{self.url}/api/{path}"
            # Certificates, which are not needed, would be read for each request.
            answers.append(httpx.request(method, at, json=body, timeout=120, trust_env=False, verify=False))
            return answers[-1].status_code != 503

        wait_until(answered, timeout=180, every=1.0)
        assert answers[-1].is_success, answers[-1].text
        return answers[-1].json() if answers[-1].content else None

    def get(self, path: str) -> Any:
        return self.ask(path, method="GET")

    def deployment(self, name: str) -> Any:
        """Return a deployment by its name `flow/deployment`."""
        return self.get(f"deployments/name/{name}")

    def start(self, name: str, **parameters: Any) -> str:
        """Start a run with the deployment's parameters, updated by these; return its id."""
        deployment = self.deployment(name)
        merged = deployment["parameters"]["parameters"] | parameters
        body = {"parameters": {"parameters": merged}, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"deployments/{deployment['id']}/create_flow_run", body)["id"])

    def run(self, run_id: str) -> Any:
        return self.get(f"flow_runs/{run_id}")

    def state(self, run_id: str) -> str:
        return str(self.run(run_id)["state"]["type"])

    def wait(self, run_id: str, *states: str, timeout: float = 240) -> Any:
        """Wait until the run is in one of the states (by default, ended); return it."""
        expected = set(states) or ENDED
        wait_until(lambda: self.state(run_id) in expected, timeout=timeout, every=0.5)
        return self.run(run_id)

    def artifacts(self, run_id: str) -> list[dict[str, Any]]:
        matching = self.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
        return list(matching)


def find_processes(desk: Desk, words: str) -> list[psutil.Process]:
    """Return the processes of this desk with these words in their command lines."""
    matching = []
    for process in processes_of(desk.mark):
        try:
            if words in " ".join(process.cmdline()):
                matching.append(process)
        except psutil.Error:
            continue
    return matching


def vllm_processes(desk: Desk) -> list[psutil.Process]:
    """Return the scripted servers of this desk's runs, with their supervisors."""
    return find_processes(desk, "--served-model-name")


def script(**behaviour: Any) -> str:
    """Return `vllm_args` that give the scripted server this behaviour."""
    return f"--script '{json.dumps(behaviour)}'"


def run_parameters(folder: Path, count: int = 4, **behaviour: Any) -> dict[str, Any]:
    """Return parameters of a rejection-sampling run with the scripted server, `count` problems of two rollouts."""
    return {
        "model_path": ["m"], "model_name": ["m"], "few_shot": None, "num_rollout": 2, "no_canary": True,
        "dataset": str(write_problems(folder / "problems.jsonl", count)), "output_dir": str(folder / "out"),
        "log_dir": str(folder / "logs"), "vllm_args": script(**behaviour),
    }  # fmt: skip


@contextmanager
def running_desk(desk: Desk) -> Iterator[Desk]:
    """Keep it up while the block runs."""
    desk.up(*FLAGS)
    try:
        yield desk
    finally:
        desk.command("down")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Start a desk whose interpreters have already imported: for tests that do not check how processes end."""
    with running_desk(Desk(tmp_path_factory.mktemp("desk"), prepared())) as desk:
        yield desk


def automation_names(desk: Desk) -> set[str]:
    automations = [automation["name"] for automation in desk.ask("automations/filter", {})]
    assert len(set(automations)) == len(automations), "registered a second time"
    return {name.removeprefix("rollmill: ") for name in automations if name.startswith("rollmill: ")}


@pytest.fixture(scope="module")
def messages(desk: Desk) -> Iterator[list[str]]:
    """Yield the messages that the notification block `custom-webhook/team` sends."""
    notifications: list[str] = []
    receiver = type("Receiver", (NotificationReceiver,), {"messages": notifications})
    server = ThreadingHTTPServer(("127.0.0.1", 0), receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kind = desk.get("block_types/slug/custom-webhook")["id"]
    [schema, *_] = desk.ask("block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    hook = {"name": "team", "url": f"http://127.0.0.1:{server.server_port}/"}
    hook |= {"json_data": {"told": "{{subject}} {{body}}"}}
    document = {"name": "team", "data": hook, "block_type_id": kind, "block_schema_id": schema["id"]}
    desk.ask("block_documents/", document)
    yield notifications
    server.shutdown()
    server.server_close()


class NotificationReceiver(BaseHTTPRequestHandler):
    """Records the messages that are posted to it."""

    messages: list[str]

    def do_POST(self) -> None:
        self.messages.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def notified(desk: Desk, messages: list[str]) -> list[str]:
    """Return the received notifications, with the automations that send them registered."""
    if "tell of failures" not in automation_names(desk):
        desk.up(NOTIFY, *FLAGS, python=prepared())  # for a running desk `up` only registers
    return messages


@pytest.fixture(scope="session")
def help_texts() -> dict[str, tuple[str, str]]:
    """Return the help of every command, by `rollmill` and by its module."""
    return all_help()
