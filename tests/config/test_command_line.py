import errno
import io
import signal
import subprocess
import sys
import textwrap
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator, model_serializer, model_validator
from pydantic_core import PydanticSerializationError

from rollmill.config.command_line import parse_command, parse_command_line, report_errors
from rollmill.errors import InputError


class Verifier(Enum):
    NUMERIC = "numeric"
    EXACT = "exact"


class Parameters(BaseModel):
    model_path: list[str] = Field(
        title="Model",
        description="Directory or hub id, 100% local",
        min_length=1,
        json_schema_extra={"group": "Model", "env": True, "metavar": "PATH"},
    )
    model_name: Annotated[list[str], Field(min_length=1)] = Field(json_schema_extra={"group": "Model", "env": True})
    num_rollout: int = Field(
        16, ge=1, le=1000, title="Rollouts per problem", json_schema_extra={"group": "Sampling", "env": True}
    )
    temperature: float = Field(
        1.0, ge=0, lt=5, allow_inf_nan=False, json_schema_extra={"group": "Sampling", "env": "TEMP"}
    )
    share: float = Field(0.0, gt=-1)
    skip_vllm_launch: bool = Field(False, json_schema_extra={"group": "Serving", "env": True})
    no_canary: bool = False
    plots: bool = Field(True, json_schema_extra={"env": True})
    verifier: Literal["numeric", "exact"] | str = "numeric"
    scoring: Verifier = Verifier.NUMERIC
    retry: Literal["failed", "truncated"] | None = None
    level: Literal[1, 2] | None = None
    few_shot: Path | None = None
    gpus: list[int] = []
    size: tuple[int, int] = (1, 2)
    seed: Annotated[int, Field(ge=0)] | None = None
    port: int | None = None
    dotted: str = Field("", pattern=r"^[a-z.]*$")

    @field_validator("few_shot")
    @classmethod
    def _is_json(cls, value):
        if value and value.suffix != ".json":
            raise ValueError("must end in .json")
        return value

    @model_validator(mode="after")
    def _pairs(self):
        if len(self.model_path) != len(self.model_name):
            raise ValueError("--model_path and --model_name must name\nas many models")
        if self.seed == 666:
            raise InputError("--seed: unlucky")
        return self


BASE = ["--model_path", "m", "--model_name", "n"]


def parse(*argv, environ=None):
    return parse_command_line(
        Parameters, argv, prog="job", description="Does it.", examples="  job --seed 1", environ=environ or {}
    )


def mistakes(capsys, *argv, environ=None):
    with pytest.raises(SystemExit) as stop:
        parse(*argv, environ=environ)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage" not in err
    assert "Traceback" not in err
    lines = err.splitlines()
    assert all(line.startswith("job: ") for line in lines)
    return [line.removeprefix("job: ") for line in lines]


def test_defaults_and_required():
    parameters = parse(*BASE)
    assert (
        parameters.model_path,
        parameters.num_rollout,
        parameters.plots,
        parameters.no_canary,
        parameters.retry,
    ) == (["m"], 16, True, False, None)


@pytest.mark.parametrize("flag", ["--num_rollout", "--num-rollout"])
def test_dash_and_underscore_are_alike(flag):
    assert parse(*BASE, flag, "4").num_rollout == 4
    assert parse(*BASE, f"{flag}=4").num_rollout == 4


def test_lists_take_several_values_and_repeat():
    parameters = parse("--model_path", "a", "b", "--model-path=c", "--model_name", "x", "y", "z", "--gpus", "0", "-1")
    assert parameters.model_path == ["a", "b", "c"]
    assert parameters.gpus == [0, -1]
    assert parse(*BASE, "--size", "3", "4").size == (3, 4)


def test_switches():
    parameters = parse(*BASE, "--skip-vllm-launch", "--no-canary", "--no-plots")
    assert (parameters.skip_vllm_launch, parameters.no_canary, parameters.plots) == (True, True, False)


def test_negative_numbers_are_values():
    assert parse(*BASE, "--share", "-1e-3").share == -0.001
    assert parse(*BASE, "--share", "-0.5").share == -0.5


def test_choices_of_every_kind():
    parameters = parse(*BASE, "--scoring", "exact", "--level", "2", "--retry", "failed", "--verifier", "my.own")
    assert (parameters.scoring, parameters.level, parameters.retry, parameters.verifier) == (
        Verifier.EXACT,
        2,
        "failed",
        "my.own",
    )


def test_environment_under_flags_over_defaults():
    environ = {"MODEL_PATH": "a 'b c'", "MODEL_NAME": "x y", "NUM_ROLLOUT": "4", "TEMP": " 0.5 ", "SEED": "7"}
    parameters = parse("--num_rollout", "5", environ=environ)
    assert (parameters.model_path, parameters.model_name) == (["a", "b c"], ["x", "y"])
    assert (parameters.num_rollout, parameters.temperature, parameters.seed) == (5, 0.5, None)


@pytest.mark.parametrize(("text", "value"), [("1", True), ("0", False), ("Yes", True), ("no", False), ("TRUE", True)])
def test_booleans_in_the_environment(text, value):
    parameters = parse(*BASE, environ={"SKIP_VLLM_LAUNCH": text, "PLOTS": text})
    assert (parameters.skip_vllm_launch, parameters.plots) == (value, value)


def test_empty_environment_variable_is_not_set():
    assert parse(*BASE, environ={"NUM_ROLLOUT": "", "MODEL_PATH": " "}).num_rollout == 16


def test_wrong_environment_does_not_matter_under_a_flag():
    assert parse(*BASE, environ={"MODEL_PATH": "a 'b"}).model_path == ["m"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--num_rollout", "0"], "--num_rollout: 0 is too small: must be at least 1"),
        (["--num_rollout", "1001"], "--num_rollout: 1001 is too large: must be at most 1000"),
        (["--num-rollout", "x"], "--num_rollout: 'x' is not a whole number"),
        (["--num_rollout", "1.5"], "--num_rollout: 1.5 is not a whole number"),
        (["--temperature", "nan"], "--temperature: nan is not a finite number"),
        (["--temperature", "5"], "--temperature: 5 is too large: must be less than 5.0"),
        (["--temperature", "1,5"], "--temperature: '1,5' is not a number"),
        (["--share", "-1"], "--share: -1 is too small: must be more than -1.0"),
        (["--retry", "fialed"], "--retry: 'fialed' is not one of failed, truncated; did you mean failed?"),
        (["--scoring", "q"], "--scoring: 'q' is not one of numeric, exact"),
        (["--level", "3"], "--level: 3 is not one of 1, 2"),
        (["--gpus", "1", "x"], "--gpus: 'x' is not a whole number"),
        (["--seed", "-1"], "--seed: -1 is too small: must be at least 0"),
        (["--seed", "666"], "--seed: unlucky"),
        (["--few_shot", "a.txt"], "--few_shot: 'a.txt': must end in .json"),
        (["--dotted", "A"], "--dotted: 'A' does not match ^[a-z.]*$"),
        (["--num_rollout"], "--num_rollout: needs a value"),
        (["--no_canary=yes"], "--no_canary: takes no value, found 'yes'"),
        (["--num_rolout", "3"], "--num_rolout: unknown flag; did you mean --num_rollout?"),
        (["--num_roll", "3"], "--num_roll: unknown flag; did you mean --num_rollout?"),
        (["--qqqqqq", "3"], "--qqqqqq: unknown flag; see --help"),
        (["--seed", "3", "4"], "4 follows no flag that takes a value; see --help"),
        (["--model_name", "o"], "--model_path and --model_name must name as many models"),
    ],
)
def test_a_mistake_is_one_line(capsys, argv, expected):
    assert mistakes(capsys, *BASE, *argv) == [expected]


def test_several_mistakes_are_a_line_each(capsys):
    assert mistakes(capsys, "--num_rollout", "0", "--seed", "x", "--model_name", "n") == [
        "--model_path: required (or set MODEL_PATH in the environment)",
        "--num_rollout: 0 is too small: must be at least 1",
        "--seed: 'x' is not a whole number",
    ]


def test_tuple_of_the_wrong_length(capsys):
    assert mistakes(capsys, *BASE, "--size", "1") == ["--size: needs more values"]
    (line,) = mistakes(capsys, *BASE, "--size", "1", "2", "3")
    assert "3 values are too many: at most 2" in line


def test_mistakes_in_the_environment_name_the_variable(capsys):
    environ = {"NUM_ROLLOUT": "q", "SKIP_VLLM_LAUNCH": "maybe", "TEMP": "-1"}
    assert mistakes(capsys, *BASE, environ=environ) == [
        "NUM_ROLLOUT (environment): 'q' is not a whole number",
        "TEMP (environment): -1 is too small: must be at least 0.0",
        "SKIP_VLLM_LAUNCH (environment): 'maybe' is neither yes nor no: use 1, 0, true, false, yes or no",
    ]
    (line,) = mistakes(capsys, "--model_name", "n", environ={"MODEL_PATH": "a 'b"})
    assert line.startswith('MODEL_PATH (environment): "a \'b" cannot be split into words')


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=12), max_size=6))
def test_any_arguments_give_parameters_or_one_line_each(argv):
    try:
        parse(*BASE, *argv)
    except SystemExit as stop:
        code = stop.code
    else:
        code = 0
    assert code in (0, 2)


@given(st.text(max_size=20))
def test_any_environment_gives_parameters_or_exit_2(text):
    try:
        parse(environ=dict.fromkeys(["MODEL_PATH", "MODEL_NAME", "NUM_ROLLOUT", "PLOTS"], text))
    except SystemExit as stop:
        code = stop.code
    else:
        code = 0
    assert code in (0, 2)


def test_report_errors(capsys):
    with pytest.raises(SystemExit) as stop, report_errors("job"):
        raise InputError("no such\nfile")
    assert (stop.value.code, capsys.readouterr().err) == (1, "job: no such file\n")
    with pytest.raises(SystemExit) as stop, report_errors("job"):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert "stopped: run the same command again to continue" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop, report_errors("job"):
        Path("/dev/null/below").mkdir()
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith("job: Not a directory: /dev/null/below; a file is where a folder belongs")
    with pytest.raises(ZeroDivisionError), report_errors("job"):
        _ = 1 / 0
    with pytest.raises(ConnectionResetError), report_errors("job"):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


class NumberParameters(BaseModel):
    """Its serializer is interrupted."""

    @model_serializer
    def interrupt(self):
        signal.raise_signal(signal.SIGINT)
        return {}


def test_ctrl_c_wrapped_by_a_library_error_still_interrupts():
    with pytest.raises(PydanticSerializationError):
        NumberParameters().model_dump()
    with pytest.raises(SystemExit) as stop, report_errors("job"):
        NumberParameters().model_dump()
    assert stop.value.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ZeroDivisionError), report_errors("job"):  # and nobody remembers it
        _ = 1 / 0


def run_script(tmp_path, *argv):
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from typing import Literal
            from pydantic import BaseModel, Field
            from rollmill.config.command_line import parse_command_line

            class Parameters(BaseModel):
                model_path: list[str] = Field(
                    description="Where it is", json_schema_extra={"group": "Model", "env": True, "metavar": "PATH"})
                num_rollout: int = Field(16, ge=1, title="100% rollouts", json_schema_extra={"group": "Sampling"})
                top_k: int = Field(0, json_schema_extra={"group": "Sampling"})
                verifier: Literal["numeric", "exact"] = Field("numeric", json_schema_extra={"group": "Scoring"})
                plots: bool = Field(True, description="Draw", json_schema_extra={"group": "Scoring"})
                api_base: str | None = Field(None, json_schema_extra={"group": "Model"})

            try:
                parse_command_line(Parameters, prog="job", description="Does it.", examples="  job --model_path m")
            finally:
                heavy = {"prefect", "torch", "matplotlib", "numpy", "fsspec", "asyncio"} & set(sys.modules)
                assert not heavy, heavy
            """
        )
    )
    return subprocess.run([sys.executable, script, *argv], capture_output=True, text=True, check=False)


def test_help_in_a_process(tmp_path):
    done = run_script(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert text.startswith("usage: job --model_path PATH [flags]")
    assert "Where it is (required; env: MODEL_PATH)" in text
    assert "100% rollouts (default: 16)" in text
    assert "--top_k N (default: 0)" in text
    assert "--verifier {numeric,exact} (default: numeric)" in text
    assert "--plots Draw (default: on) --no_plots not --plots" in text
    assert text.endswith("examples: job --model_path m")
    assert done.stdout.index("\nModel:") < done.stdout.index("\nSampling:") < done.stdout.index("\nScoring:")
    assert done.stdout.count("\nModel:") == 1


def test_a_mistake_in_a_process(tmp_path):
    done = run_script(tmp_path, "--model_path", "m", "--num-rollout", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "job: --num_rollout: 0 is too small: must be at least 1\n"


class Look(BaseModel):
    """Looks at it.

    Twice, where
        needed.
    """

    path: str
    index: int = 0


class LookAway(BaseModel):
    path: str = "away"


COMMANDS = {"look": Look, "look_away": LookAway}


def command(capsys, *argv):
    """Parameters, or the exit status; what was printed to stdout and to stderr."""
    try:
        result = parse_command(COMMANDS, argv, prog="job", description="Does it.", examples="  job look --path x")
    except SystemExit as stop:
        result = stop.code
    return (result, *capsys.readouterr())


def test_the_first_argument_names_the_command(capsys):
    assert command(capsys, "look", "--path", "x", "--index", "-1") == (Look(path="x", index=-1), "", "")
    assert command(capsys, "look_away")[0] == LookAway(path="away")


@pytest.mark.parametrize("name", ["look_away", "look-away"])
def test_commands_by_either_spelling(capsys, name):
    assert command(capsys, name, "--path=y") == (LookAway(path="y"), "", "")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lok"], "job: 'lok' is not a command: did you mean look?"),
        (["look-awy"], "job: 'look-awy' is not a command: did you mean look_away?"),
        (["zzz", "--path", "x"], "job: 'zzz' is not a command: there are look, look_away"),
        (["--path", "x"], "job: '--path' is not a command: there are look, look_away"),
        (["a\nb"], "job: 'a\\nb' is not a command: there are look, look_away"),
        (["look"], "job look: --path: required"),
        (["look", "--path", "x", "more"], "job look: 'more' follows no flag that takes a value; see --help"),
        (["look-away", "--pth", "x"], "job look_away: --pth: unknown flag; did you mean --path?"),
    ],
)
def test_a_mistake_in_a_command_is_one_line(capsys, argv, message):
    assert command(capsys, *argv) == (2, "", message + "\n")


@pytest.mark.parametrize(("argv", "status"), [([], 2), (["--help"], 0), (["-h"], 0), (["help"], 0)])
def test_the_commands_are_listed(capsys, argv, status):
    result, out, err = command(capsys, *argv)
    assert (result, err) == (status, "")
    assert out == (
        "usage: job COMMAND [flags]\n\nDoes it.\n\ncommands:\n  look       Looks at it.\n  look_away\n\n"
        "job COMMAND --help lists a command's flags.\n\nexamples:\n  job look --path x\n"
    ).rstrip("\n")


def test_help_of_one_command_is_its_docstring(capsys):
    result, out, err = command(capsys, "look", "--help")
    assert (result, err) == (0, "")
    assert out.startswith("usage: job look --path TEXT [flags]\n\nLooks at it.\n\nTwice, where\n    needed.\n")


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=12), max_size=4))
def test_any_words_give_parameters_or_an_exit(argv):
    try:
        parse_command(COMMANDS, argv, prog="job", description="", examples="")
    except SystemExit as stop:
        code = stop.code
    else:
        code = 0
    assert code in (0, 2)


class ClosedPipe(io.StringIO):
    """A pipe whose reader has closed it: writing is buffered, flushing fails."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def flush(self):
        raise BrokenPipeError

    def fileno(self):
        return self.file.fileno()


@pytest.mark.parametrize("end", [BrokenPipeError(), SystemExit(0), InputError("no such file")])
def test_a_reader_that_has_gone_is_no_error(monkeypatch, tmp_path, end):
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr("sys.stdout", ClosedPipe(file))
        with pytest.raises(SystemExit) as stop, report_errors("job"):
            raise end
    assert stop.value.code == 141


def test_what_else_is_given_is_settled_before_it_is_judged(capsys):
    def settle(environment, flags):
        assert (environment["num_rollout"], flags["seed"]) == ("3", "7")
        return {**environment, "num_rollout": 5, "level": 2, **flags}

    def settled(settle):
        return parse_command_line(
            Parameters, [*BASE, "--seed", "7"], prog="job", description="", examples="",
            environ={"NUM_ROLLOUT": "3"}, settle=settle,
        )  # fmt: skip

    values = settled(settle)
    assert (values.num_rollout, values.level, values.seed) == (5, 2, 7)

    def refuse(environment, flags):
        raise InputError("file line 3: no")

    with pytest.raises(SystemExit):
        settled(refuse)
    assert capsys.readouterr().err == "job: file line 3: no\n"
