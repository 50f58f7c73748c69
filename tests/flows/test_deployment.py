"""The job as a deployment: registered from prefect.yaml, run and cancelled through a worker."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from rollmill.agent_rollouts.parameters import AgentRollouts
from rollmill.command_line import parse_command_line
from rollmill.curation.parameters import Curate
from rollmill.episodes.parameters import CollectEpisodes
from rollmill.evaluation.before_after import TrainAndEvaluate
from rollmill.improvement.parameters import Improve
from rollmill.optimal_sampling.parameters import OptimalSampling
from rollmill.rejection.parameters import RejectSampling
from tests.flows.conftest import ROOT, journal_lines, processes_of, script, wait_until, write_problems

pytestmark = pytest.mark.slow

DEPLOYMENT = "reject-sampling/reject-sampling"
PARAMETERS = {
    "agent-rollouts": AgentRollouts,
    "collect-episodes": CollectEpisodes,
    "reject-sampling": RejectSampling,
    "curate": Curate,
    "train-lora": TrainAndEvaluate,
    "improve": Improve,
    "optimal-sampling": OptimalSampling,
}
PREFECT = [sys.executable, "-m", "prefect"]


def test_every_deployment_binds_to_its_parameters() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {deployment["name"] for deployment in deployments} == set(PARAMETERS)
    for deployment in deployments:
        assert PARAMETERS[deployment["name"]].model_validate(deployment["parameters"]["parameters"])
        assert (ROOT / deployment["entrypoint"].split(":")[0]).exists()


def given_to(name: str) -> dict[str, Any]:
    """The parameters of one deployment."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    return next(one["parameters"]["parameters"] for one in deployments if one["name"] == name)


def test_the_deployments_of_a_chain_take_what_the_one_before_leaves() -> None:
    sampled, curated, trained = (given_to(name) for name in ("reject-sampling", "curate", "train-lora"))
    assert curated["input"] == [f"reject_sampling_results/{sampled['model_name'][0]}"]
    assert trained["train_data"] == [curated["output_dir"]]
    assert trained["model_path"] == sampled["model_path"][0]


def test_the_improve_deployment_is_the_example() -> None:
    script = (ROOT / "examples/improve.sh").read_text().partition("flows.improve")[2].partition('"$@"')[0]
    given = parse_command_line(Improve, shlex.split(script.replace("\\\n", " ")), prog="", description="", examples="")
    assert Improve.model_validate(given_to("improve")) == given


def serves(process: psutil.Process) -> bool:
    """Whether a process is the stand-in for vLLM, its keeper or its engine."""
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "--served-model-name" in command or "scripted engine" in command


class Deployed:
    """A worker on the registered deployment, and what a user types."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def prefect(self, *arguments: str) -> str:
        done = subprocess.run(
            [*PREFECT, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_run(self, **parameters: object) -> str:
        """Starts a run of the deployment; its id."""
        return self.start(DEPLOYMENT, model_path=["m"], model_name=["m"], **parameters)

    def start(self, deployment: str, **parameters: object) -> str:
        """Starts a run of any deployment; its id."""
        said = self.prefect("deployment", "run", deployment, "--param", f"parameters={json.dumps(parameters)}")
        return said.split("UUID: ")[1].split()[0]

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        """What a run showed."""
        asked = json.dumps({"artifacts": {"flow_run_id": {"any_": [run]}}}).encode()
        url = self.environment["PREFECT_API_URL"] + "/artifacts/filter"
        request = urllib.request.Request(url, asked, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())

    def state(self, run: str) -> str:
        return json.loads(self.prefect("flow-run", "inspect", run, "--output", "json"))["state"]["type"]


@pytest.fixture
def deployed(tmp_path: Path, stand_in: dict[str, str]) -> Iterator[Deployed]:
    environment = stand_in | {"ROLLMILL_TEST": uuid.uuid4().hex}
    deployed = Deployed(tmp_path, environment)
    deployed.prefect("work-pool", "create", "local", "--type", "process", "--overwrite")
    deployed.prefect("--no-prompt", "deploy", "--all")
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*PREFECT, "worker", "start", "--pool", "local"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
        yield deployed
        worker.terminate()
        worker.wait(timeout=60)


def test_a_run_through_a_worker_and_its_cancellation(deployed: Deployed) -> None:
    folder = deployed.folder
    common = {
        "dataset": str(write_problems(folder / "problems.jsonl", 40)),
        "num_rollout": 4,
        "log_dir": str(folder / "logs"),
    }
    slow = script(latency_s=0.5, children=True)[1]
    run = deployed.start_run(**common, output_dir=str(folder / "cancelled"), concurrency=1, vllm_args=slow)
    wait_until(lambda: len(journal_lines(folder / "cancelled")) >= 8, timeout=90)
    deployed.prefect("flow-run", "cancel", run)
    mark = deployed.environment["ROLLMILL_TEST"]
    wait_until(lambda: not [found for found in processes_of(mark) if serves(found)], timeout=60)
    wait_until(lambda: deployed.state(run) == "CANCELLED", timeout=60)

    fast = script(children=True)[1]
    run = deployed.start_run(**common, output_dir=str(folder / "cancelled"), concurrency=8, vllm_args=fast)
    wait_until(lambda: deployed.state(run) in ("COMPLETED", "FAILED", "CRASHED"), timeout=120)
    assert deployed.state(run) == "COMPLETED", (folder / "worker.log").read_text()[-3000:]
    assert len(journal_lines(folder / "cancelled")) == 160
    assert (folder / "cancelled" / "m" / "statistics.txt").exists()
    [progress] = [found for found in deployed.artifacts(run) if found["type"] == "progress"]
    assert progress["data"] == 100
    assert "m: 160/160 rollouts, success" in progress["description"]
    assert "160" in deployed.prefect("artifact", "inspect", "reject-sampling-m-summary")
    assert "pass@k" in deployed.prefect("artifact", "inspect", "reject-sampling-m-statistics")
    assert "data:image/png;base64" in deployed.prefect("artifact", "inspect", "reject-sampling-m-errors")

    run = deployed.start("curate/curate", input=[str(folder / "cancelled" / "m")], output_dir=str(folder / "curated"))
    wait_until(lambda: deployed.state(run) in ("COMPLETED", "FAILED", "CRASHED"), timeout=120)
    assert deployed.state(run) == "COMPLETED", (folder / "worker.log").read_text()[-3000:]
    assert len((folder / "curated" / "rollouts.jsonl").read_bytes().splitlines()) == 160
    assert "curate-overview" in {found["key"] for found in deployed.artifacts(run)}
