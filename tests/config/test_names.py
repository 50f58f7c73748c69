"""Names of runs and of their files: refused in one line if they hide characters or cannot be file names."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from rollmill.config.command_line import parse_command_line
from rollmill.config.names import check_model_path, check_new_run, check_path, check_run_name
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.curation.parameters import Curate, ExportSft, ShowExample
from rollmill.jobs.episodes.override_values import check_name
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.jobs.training.parameters import TrainLora
from rollmill.terminal.escapes import visible

HIDING = [
    "a\x1b[2Jb",
    "a\0b",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x7fb",
    "a\x9bb",
    "a\u202eb",
    "a\u2066b",
    "a\u200eb",
    "a\u200bb",
    "a\u00adb",
    "a\u2028b",
    "a\ufeffb",
    "a\U000e0041b",
    "a\u3164b",
    "a\u2800b",
    "a\u034fb",
    "a\u115fb",
    "a\u1160b",
    "a\uffa0b",
    "a\u17b4b",
    "a\u180bb",
    "a\ufe0fb",
    "a\ufe00b",
    "葛\U000e0100",
    "❤\ufe0f\ufe0f",
    "a\u00a0b",
    "a\u2003b",
    "a\u3000b",
    "a\ud800b",
    "x" * 300,
    "ä" * 128,
    "a/" + "x" * 300,
]


@pytest.mark.parametrize("name", HIDING)
def test_names_that_are_refused(name):
    for check in (check_run_name, check_path, check_name):
        with pytest.raises(ValueError) as raised:  # noqa: PT011  # each says it in its own words
            check(name)
        assert "\n" not in str(raised.value)
        assert visible(str(raised.value)) == str(raised.value)


@pytest.mark.parametrize("name", ["x" * 201, "ä" * 101, "x" * 255])
def test_a_long_name_is_taken_where_it_is_there_already(tmp_path, name):
    """Older versions created it, or others did."""
    for path in (name, f"{tmp_path}/{name}", f"{tmp_path}/{name}/data.jsonl"):
        assert check_model_path(path) == path
        with pytest.raises(ValueError, match=r"new name in it has .* at most 200"):
            check_path(path)
    assert check_run_name(name) == name
    with pytest.raises(ValueError, match=r"new run's name has .* at most 200"):
        check_new_run(name, tmp_path)
    (tmp_path / name).mkdir()
    check_new_run(name, tmp_path)
    assert check_path(f"{tmp_path}/{name}/data.jsonl")
    assert check_path(f"s3://bucket/{name}")
    with pytest.raises(ValueError, match="new name in it"):
        check_path(f"{tmp_path}/{name}/{name}")


def test_a_run_that_is_there_continues_by_its_long_name(tmp_path):
    arguments = {"model_path": ["m"], "model_name": ["x" * 201], "output_dir": str(tmp_path)}
    with pytest.raises(ValidationError, match="new run's name has 201 bytes"):
        RejectSampling(**arguments)
    (tmp_path / ("x" * 201)).mkdir()
    assert RejectSampling(**arguments).model_name == ["x" * 201]


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "../a", "a/../b", "/a", "a/", "a//b", " a", "a ", "a/" * 60 + "x" * 190]
)
def test_names_that_are_no_folder(name):
    with pytest.raises(ValueError, match=r"cannot be the name of a folder|at most"):
        check_run_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "qwen3-8b",
        "org/model_v1.2",
        "Ünïcode",
        "模型",
        "می\u200cخواهم",
        "👩\u200d🔬",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
        "a b",
        "x" * 200,
    ],
)
def test_names_that_are_taken(name):
    assert check_run_name(name) == name
    assert check_path(f"/data/{name}") == f"/data/{name}"


@given(st.text(max_size=260))
def test_accepted_name_is_printable_and_a_valid_file_name(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "names"
    try:
        check_new_run(check_run_name(name), folder)
    except ValueError:
        return
    assert visible(name) == name
    assert not any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in name)
    beside = f".{name.replace('/', '--')}_vllm.log.4194304.part"
    assert len(beside.encode()) <= 255
    (folder / name).mkdir(parents=True, exist_ok=True)
    assert (folder / name).resolve().is_relative_to(folder.resolve())


JOBS: list[tuple[type[BaseModel], list[str], str]] = [
    (RejectSampling, ["--model_path", "m", "--model_name", "NAME"], "model_name"),
    (RejectSampling, ["--model_path", "NAME", "--model_name", "m"], "model_path"),
    (RejectSampling, ["--model_path", "m", "--model_name", "m", "--output_dir", "NAME"], "output_dir"),
    (RejectSampling, ["--model_path", "m", "--model_name", "m", "--log_dir", "NAME"], "log_dir"),
    (AgentRollouts, ["--model", "m", "--output", "NAME.json"], "output"),
    (AgentRollouts, ["--model", "NAME", "--output", "o.json"], "model"),
    (AgentRollouts, ["--model", "m", "--output", "o.json", "--log_file", "NAME"], "log_file"),
    (CollectEpisodes, ["--model_path", "m", "--model_name", "NAME"], "model_name"),
    (CollectEpisodes, ["--model_path", "m", "--output_dir", "NAME"], "output_dir"),
    (CollectEpisodes, ["--model_path", "m", "--sft_model_dir", "NAME"], "sft_model_dir"),
    (CollectEpisodes, ["--policy", "NAME=m"], "policy"),
    (OptimalSampling, ["--model_theta", "m", "--dataset", "d", "--output", "NAME.jsonl"], "output"),
    (Curate, ["--input", "i", "--output_dir", "NAME"], "output_dir"),
    (ExportSft, ["--input", "i", "--output", "NAME.jsonl"], "output"),
    (ShowExample, ["--input", "i", "--html", "NAME.html"], "html"),
    (TrainLora, ["--model_path", "m", "--train_data", "d", "--output_dir", "NAME"], "output_dir"),
    (Improve, ["--model_path", "m", "--feed", "f=g", "--held_out", "h", "--output_dir", "NAME"], "output_dir"),
]


@pytest.mark.parametrize(("job", "arguments", "flag"), JOBS)
@pytest.mark.parametrize("name", ["a\x1b]0;owned\x07", "a\0b", "a\nb", "a\u202eb", "x" * 300])
def test_every_job_refuses_them_in_one_line(capsys, job, arguments, flag, name):
    argv = [argument.replace("NAME", name) for argument in arguments]
    with pytest.raises(SystemExit) as raised:
        parse_command_line(job, argv, prog="p", description="d", examples="")
    assert raised.value.code == 2
    message = capsys.readouterr().err
    lines = [line for line in message.split("\n") if f"--{flag}" in line]
    assert len(lines) == 1
    assert visible(message) == message
    assert len(lines[0]) < 700
