"""Parameters have one name; earlier names are accepted in all places where parameters are given."""

from __future__ import annotations

import pytest
from pydantic import ConfigDict, ValidationError

from rollmill.config.command_line import parse_command_line
from rollmill.config.form import Form
from rollmill.config.parameter import Parameters, parameter, redefine
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.rejection_sampling.parameters import RejectSampling


class Shared(Parameters):
    count: int = parameter(3, "Group", "Count", "How many.", ge=1, env=("COUNT", "NUMBER"), aliases=("number", "num"))
    names: list[str] = parameter([], "Group", "Names", "Who.", aliases=("people",))
    quiet: bool = parameter(True, "Group", "Quiet", "Says nothing.", aliases=("silent",))


class Job(Form, Shared):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = parameter(..., "Group", "Model", "Which.", aliases=("model_path",))


def parse(*argv: str, environ: dict[str, str] | None = None) -> Job:
    return parse_command_line(Job, argv, prog="job", description="", examples="", environ=environ or {})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--model_path", "m", "--number", "4"], {"model": "m", "count": 4}),
        (["--model-path", "m", "--num=5"], {"model": "m", "count": 5}),
        (["--model", "m", "--people", "a", "b", "--names", "c"], {"model": "m", "names": ["a", "b", "c"]}),
        (["--model", "m", "--no_silent"], {"model": "m", "quiet": False}),
        (["--model", "m", "--count", "4", "--number", "9"], {"model": "m", "count": 9}),
    ],
)
def test_flags(argv: list[str], expected: dict[str, object]) -> None:
    assert parse(*argv).model_dump(exclude_unset=True) == expected


@pytest.mark.parametrize("variable", ["COUNT", "NUMBER"])
def test_environment_variables(variable: str) -> None:
    assert parse("--model", "m", environ={variable: "7"}).count == 7


def test_a_flag_by_any_name_wins_over_the_environment() -> None:
    assert parse("--model", "m", "--num", "2", environ={"COUNT": "7"}).count == 2


def test_a_mistake_names_the_flag_that_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--model_path", "m", "--number", "0")
    assert capsys.readouterr().err == "job: --number: 0 is too small: must be at least 1\n"


def test_help_shows_each_parameter_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--count N How many. (default: 3; also: --number, --num; env: COUNT, NUMBER)" in text
    assert text.count("--number") == 1


def test_earlier_names_are_read_from_python_too() -> None:
    job = Job(model="m", count=4)
    assert (job.model_path, job.number, job.num) == ("m", 4, 4)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="nothing"):
        _ = job.nothing  # type: ignore[attr-defined]


def test_two_names_in_one_set_of_parameters_are_refused() -> None:
    with pytest.raises(ValidationError, match="model and model_path are the same parameter: give one of them"):
        Job.model_validate({"model": "a", "model_path": "b"})


def test_an_alias_wins_over_its_fields_default_which_forms_send_beside_it() -> None:
    assert Job.model_validate({"model": "m", "count": 3, "number": 9}).count == 9
    with pytest.raises(ValidationError, match="count and number are the same parameter"):
        Job.model_validate({"model": "m", "count": 4, "number": 9})


def test_a_job_may_have_another_default_and_further_names() -> None:
    class Other(Shared):
        count: int = redefine(Shared, "count", 5, aliases=("workers",), le=8)

    assert Other().count == 5
    assert Other.model_validate({"workers": 8}).count == 8
    with pytest.raises(ValidationError, match="less than or equal to 8"):
        Other(count=9)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Other(count=0)


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (RejectSampling, {"model_path": "m", "model_name": "n", "max_data": 3, "concurrency": 2}),
        (AgentRollouts, {"model": "m", "dataset": "d.json", "output": "o.json", "max_tasks": 2, "samples_per_task": 3,
                         "workers": 5}),
        (CollectEpisodes, {"model_path": "oracle", "num_episodes": 3, "max_data": 2, "split": "test"}),
        (OptimalSampling, {"model_theta": "m", "dataset": "d", "output": "o.jsonl", "num_samples": 3, "workers": 2,
                           "max_new_tokens": 9}),
        (TrainAndEvaluate, {"model_path": "m", "train_data": "t", "output_dir": "o", "slots": 3}),
        (Improve, {"model_path": "m", "dataset": "d", "held_out": "h", "max_data": 3, "slots": 4}),
    ],
)  # fmt: skip
def test_earlier_parameter_names_are_accepted_by_every_job(
    model: type[Parameters], arguments: dict[str, object]
) -> None:
    parameters = model.model_validate(arguments)
    values = parameters.model_dump(exclude_unset=True)
    assert len(values) == len(arguments)
    assert model.model_validate(values) == parameters
