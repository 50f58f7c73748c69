"""`--concurrency` of every job: a number, or `auto` in jobs that support it."""

import pytest
from prefect.utilities.schema_tools.validation import is_valid
from pydantic import ValidationError

from rollmill.config.command_line import parse_command_line
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from tests.config.test_form import form

REJECT = {"model_path": "m", "model_name": "n", "dataset": "d"}


def parsed(*argv):
    arguments = [part for name, value in REJECT.items() for part in (f"--{name}", value)]
    return parse_command_line(RejectSampling, [*arguments, *argv], prog="job", description="", examples="", environ={})


@pytest.mark.parametrize("argv", [("--concurrency", "auto"), ("--concurrent-problems", "auto"), ("--concurrency=0",)])
def test_auto(argv):
    assert parsed(*argv).slots == "auto"


def test_a_number_counts_problems():
    assert parsed("--concurrency", "3", "--num_rollout", "4").slots == 12


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("many", "--concurrency: 'many' is not a whole number, or 'many' is not one of auto"),
        ("-1", "--concurrency: -1 is too small: must be at least 1, or -1 is not one of auto"),
    ],
)
def test_anything_else_is_refused_in_one_line(value, message, capsys):
    with pytest.raises(SystemExit):
        parsed("--concurrency", value)
    assert capsys.readouterr().err == f"job: {message}\n"


@pytest.mark.parametrize("value", ["auto", 0])
def test_agents_take_a_number(value):
    with pytest.raises(ValidationError, match="concurrency") as raised:
        AgentRollouts(model_path="m", dataset="d", output="o.json", concurrency=value)
    assert raised.value.error_count() == 1
    assert ("each attempt has a sandbox" in str(raised.value)) == (value == "auto")


def test_evaluations_and_rounds_hand_it_on():
    loop = Improve(model_path="m", dataset="d", held_out="h", concurrency="auto", num_rollout=4)
    assert loop.evaluation("m", "f").slots == "auto"
    [planned] = loop.plan_sources(1, "m")
    assert planned.parameters.slots == "auto"


@pytest.mark.parametrize(
    ("job", "name"),
    [(RejectSampling, "concurrent_problems"), (CollectEpisodes, "concurrency"), (Improve, "concurrency")],
)
def test_forms_take_a_number(job, name):
    """Prefect's form shows no choice of types: there 0 is auto."""
    field = form(job)[name]
    assert (field["type"], field["minimum"]) == ("integer", 0)
    assert "0" in field["description"]
    assert is_valid({"n": 0}, {"type": "object", "properties": {"n": field}})
