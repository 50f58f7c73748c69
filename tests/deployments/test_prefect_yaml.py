"""The deployments of prefect.yaml, without a server."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.schedules import Cron

from rollmill.config.command_line import parse_command_line
from rollmill.jobs.improvement.parameters import Improve
from tests.flows.conftest import ROOT

DEPLOYMENTS = {
    deployment["name"]: deployment for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
}


def parameters_of(name: str) -> dict[str, Any]:
    """Return the parameters of a deployment."""
    parameters: dict[str, Any] = DEPLOYMENTS[name]["parameters"]["parameters"]
    return parameters


def test_every_flow_is_deployed() -> None:
    flows = {path.stem for path in (ROOT / "flows").glob("*.py")} - {"__init__"}
    assert {deployment["entrypoint"].split("/")[1].split(".")[0] for deployment in DEPLOYMENTS.values()} == flows


@pytest.mark.slow
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_deployment_parameters_fit_its_flow(name: str) -> None:
    flow = load_flow_from_entrypoint(str(ROOT / DEPLOYMENTS[name]["entrypoint"]))
    bound = flow.validate_parameters({"parameters": parameters_of(name)})["parameters"]
    for field, value in parameters_of(name).items():
        assert field in type(bound).model_fields, f"{name} gives {field}, which is no parameter of its flow"
        assert value is not None


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_deployments_have_descriptions_and_concurrency_limits(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert deployment["description"].endswith(".")
    assert deployment["tags"]
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment["work_pool"]["work_queue_name"] == ("cpu" if name == "curate" else "gpu")
    assert deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    for schedule in deployment.get("schedules", []):
        assert schedule["active"] is False
        assert "{date}" in parameters_of(name)["output_dir"], "the second time there would be nothing to do"
        Cron(schedule["cron"], timezone=schedule["timezone"])


def test_chained_deployments_read_the_previous_output() -> None:
    sampled, curated, trained = (parameters_of(name) for name in ("reject-sampling", "curate", "train-lora"))
    assert curated["input"] == [f"reject_sampling_results/{sampled['model_name'][0]}"]
    assert trained["train_data"] == [curated["output_dir"]]
    assert trained["model_path"] == sampled["model_path"][0]
    assert parameters_of("reject-sampling-weekly")["model_path"] == [
        sampled["model_path"][0], f"{trained['output_dir']}/merged",
    ]  # fmt: skip
    assert trained["merge"]


def test_improve_deployments_match_the_example() -> None:
    script = (ROOT / "examples/improve.sh").read_text().partition("flows.improve")[2].partition('"$@"')[0]
    parameters = parse_command_line(
        Improve, shlex.split(script.replace("\\\n", " ")), prog="", description="", examples=""
    )
    for name in ("improve", "improve-nightly"):
        assert Improve.model_validate(parameters_of(name) | {"output_dir": parameters.output_dir}) == parameters
