"""The JSON schemas of the jobs' parameters, as Prefect's server and forms use them."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import is_valid, validate
from pydantic import BaseModel, create_model

from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.curation.parameters import Curate
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.rejection_sampling.parameters import RejectSampling

JOBS: list[type[BaseModel]] = [
    RejectSampling, AgentRollouts, CollectEpisodes, OptimalSampling, Curate, TrainAndEvaluate, Improve,
]  # fmt: skip


def schema_of(job: type[BaseModel]) -> dict[str, Any]:
    """The schema as Prefect makes it, of a flow whose parameters are the job's."""
    schema = create_model("Parameters", parameters=(job, ...)).model_json_schema(ref_template="#/definitions/{model}")
    schema["definitions"] = schema.pop("$defs")
    return schema


def form(job: type[BaseModel]) -> dict[str, dict[str, Any]]:
    return dict(schema_of(job)["definitions"][job.__name__]["properties"])


@pytest.mark.parametrize("job", JOBS)
def test_form_fields_are_grouped_with_one_label_and_help(job: type[BaseModel]) -> None:
    fields = form(job)
    assert set(fields) == set(job.model_fields)
    assert [field["position"] for field in fields.values()] == list(range(len(fields)))
    groups = [field["group"] for field in fields.values()]
    assert groups == sorted(groups, key=groups.index)
    assert groups[-1] == "Results"
    labels = [field["title"] for field in fields.values()]
    assert len(set(labels)) == len(labels)
    assert all(label.startswith(group) for label, group in zip(labels, groups, strict=True))
    assert all(len(field["description"]) > 5 for field in fields.values())


@pytest.mark.parametrize("job", JOBS)
def test_no_field_asks_for_a_type(job: type[BaseModel]) -> None:
    for name, field in form(job).items():
        assert field["type"] in {"string", "integer", "number", "boolean", "array", "object"}, name
        assert not {"anyOf", "const"} & set(field), name
        assert field.get("default", 0) is not None, name


def test_help_says_bounds_and_names_fields_as_the_form_does() -> None:
    fields = form(RejectSampling)
    assert fields["model_path"]["title"] == "Model path"
    assert fields["num_rollout"]["title"] == "Sampling: Rollouts per problem"
    assert fields["num_rollout"]["description"].endswith("From 1 to 65,536.")
    assert fields["top_p"]["description"].endswith("More than 0 and at most 1.")
    assert fields["max_tokens"]["description"].endswith("At least 1.")
    assert fields["skip_vllm_launch"]["description"].endswith("at “Base URLs” or “Port”.")
    assert fields["retry"]["enum"] == ["failed", "truncated"]
    assert form(AgentRollouts)["retry"]["enum"] == ["failed"]
    assert "“Only successful” off" in form(CollectEpisodes)["balance_success"]["description"]


@pytest.mark.parametrize(
    ("values", "taken"),
    [
        ({}, True),
        ({"few_shot": None, "max_data": None, "model_port": None}, True),
        ({"few_shot": "examples.jsonl", "max_data": 3, "retry": "failed"}, True),
        ({"max_data": 0}, False),
        ({"max_problems": 3}, True),
        ({"max_problems": 0}, False),
        ({"num_rollout": None}, False),
        ({"retry": "all"}, False),
        ({"top_p": 0}, False),
        ({"unknown": 1}, False),
    ],
)
def test_schema_accepts_the_same_values_as_the_model(values: dict[str, Any], taken: bool) -> None:
    parameters = {"model_path": ["m"], "model_name": ["m"], **values}
    assert is_valid({"parameters": parameters}, schema_of(RejectSampling)) is taken


def test_the_server_asks_for_a_required_parameter_by_any_of_its_names() -> None:
    schema = schema_of(AgentRollouts)
    for name in ("model", "model_path"):
        assert is_valid({"parameters": {name: "m", "dataset": "d.json", "output": "o.json"}}, schema)
    assert not is_valid({"parameters": {"dataset": "d.json", "output": "o.json"}}, schema)


@pytest.mark.parametrize("model", [RejectSampling, AgentRollouts, CollectEpisodes])
def test_the_form_is_one_object_that_prefects_pages_show(model: type[BaseModel]) -> None:
    [definition] = schema_of(model)["definitions"].values()
    assert not {"allOf", "anyOf", "oneOf"} & definition.keys()


def test_a_deployment_may_leave_required_parameters_to_its_runs() -> None:
    assert not validate({"parameters": {"max_data": 3}}, schema_of(RejectSampling), ignore_required=True)
    assert not validate({"parameters": {"max_tasks": 3}}, schema_of(AgentRollouts), ignore_required=True)
