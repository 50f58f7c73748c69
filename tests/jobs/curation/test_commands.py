"""The commands of curation: their output, their files, and their messages on mistakes."""

import errno
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from rollmill.config.command_line import parse_command, report_errors
from rollmill.corpus.corpus import read_corpus
from rollmill.errors import InputError
from rollmill.jobs.curation import commands
from rollmill.jobs.curation.analysis import analyse
from rollmill.jobs.curation.commands import run_command
from rollmill.jobs.curation.flow_steps import write_export, write_filtered
from rollmill.jobs.curation.parameters import COMMANDS, Curate, FilterData
from tests.corpus.test_producers import FILES
from tests.exports.sample_corpus import lines_of, rollout
from tests.generation.run_factory import append, opened

ROOT = Path(__file__).parents[3]
ROWS = [
    rollout("p0", 0, 1.0, answer="first answer", model_calls=1),
    rollout("p0", 1, 0.0, answer="second answer", model_calls=2),
    rollout("p1", 0, 0.5, answer="third answer", model_calls=3),
]


@pytest.fixture(autouse=True)
def workdir(tmp_path, monkeypatch):
    """A folder of one's own with `raw.json`."""
    monkeypatch.chdir(tmp_path)
    Path("raw.json").write_text(json.dumps({"metadata": {"model_name": "m"}, "examples": ROWS, "summary": {}}))
    return tmp_path


@pytest.fixture
def do(capsys):
    """Runs a command line in this process: (exit status, stdout, stderr)."""

    def run(*argv):
        try:
            with report_errors("curate"):
                run_command(parse_command(COMMANDS, argv, prog="curate", description="", examples=""))
        except SystemExit as stop:
            return (stop.code, *capsys.readouterr())
        return (0, *capsys.readouterr())

    return run


def curate(*argv, **options):
    """The same in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "flows.curate", *argv], capture_output=True, text=True, env=environment, **options
    )


def files():
    return sorted(path.name for path in Path().iterdir())


def test_analyze(do):
    status, out, err = do("analyze", "--input", "raw.json")
    assert (status, err) == (0, "")
    assert "raw.json" in out
    assert "Infinity" not in out
    assert files() == ["raw.json"]


def test_analyze_json_is_the_analysis(do):
    status, out, err = do("analyze", "--input", "raw.json", "--json")
    assert (status, err) == (0, "")
    expected = analyse(read_corpus(["raw.json"]).table).model_dump(mode="json")
    assert json.loads(out) == json.loads(json.dumps(expected))
    assert (expected["rollouts"], expected["problems"], expected["successes"]) == (3, 2, 1)


def test_filter_data(do):
    status, out, err = do("filter_data", "--input", "raw.json", "--output", "good.json", "--min-reward", "0.5")
    assert (status, err) == (0, "")
    assert out == (
        "kept 2 of 3 rollouts, of 2 problems: good.json\ndropped 1 (reward_below_min 1): good.dropped.json\n"
    )
    assert json.loads(Path("good.json").read_text())["examples"] == [ROWS[0], ROWS[2]]
    assert files() == ["good.dropped.json", "good.json", "raw.json"]


def test_filter_data_with_places_only(do):
    status, *_ = do(
        "filter-data", "--input", "raw.json", "--output", "g.json", "--successful_only", "--dropped", "places"
    )
    assert status == 0
    assert [(row["row"], row["drop_reason"]) for row in lines_of(Path("g.dropped.jsonl"))] == [
        (2, "not_successful"),
        (3, "not_successful"),
    ]


def test_export_sft(do):
    status, out, _ = do("export_sft", "--input", "raw.json", "--output", "sft.jsonl", "--format", "prompt_completion")
    assert status == 0
    assert out.startswith("used 3 of 3 rollouts\ntrain: 3 rows of 2 problems: sft.jsonl\n")
    assert list(lines_of(Path("sft.jsonl"))[0]) == ["prompt", "completion", "metadata"]
    assert files() == ["README.md", "raw.json", "sft.dropped.jsonl", "sft.jsonl"]


def test_export_sft_split(do):
    argv = ("--input", "raw.json", "--output", "sft.jsonl", "--validation-share", "0.5", "--seed", "3")
    status, out, _ = do("export-sft", *argv)
    assert status == 0
    assert "validation: " in out
    sides = [
        {row["metadata"]["instance_id"] for row in lines_of(Path(name))}
        for name in ("sft.jsonl", "sft.validation.jsonl")
    ]
    assert sorted(map(sorted, sides)) == [["p0"], ["p1"]]


def test_export_trajectory(do):
    assert do("export_trajectory", "--input", "raw.json", "--output", "t.json", "--best-k", "1")[0] == 0
    rows = json.loads(Path("t.json").read_text())["trajectories"]
    assert [(row["instance_id"], row["sample_id"]) for row in rows] == [("p0", 0), ("p1", 0)]


def test_export_preferences(do):
    status, out, _ = do("export_preferences", "--input", "raw.json", "--output", "pairs.jsonl", "--min-margin", "0.3")
    assert status == 0
    assert "used 2 of 3 rollouts" in out
    [pair] = lines_of(Path("pairs.jsonl"))
    assert pair["metadata"]["margin"] == 1.0


@pytest.mark.parametrize(("index", "answer"), [("0", "first"), ("-1", "third"), ("1", "second"), ("-3", "first")])
def test_show_example(do, index, answer):
    status, out, err = do("show_example", "--input", "raw.json", "--index", index)
    assert (status, err) == (0, "")
    assert [word for word in ("first", "second", "third") if f"{word} answer" in out] == [answer]
    assert files() == ["raw.json"]


def test_show_example_with_conditions(do):
    assert "third answer" in do("show_example", "--input", "raw.json", "--instance_id", "p1")[1]
    assert "second answer" in do("show_example", "--input", "raw.json", "--unsuccessful-only", "--index", "0")[1]


def test_show_example_whole(do):
    Path("long.jsonl").write_bytes(orjson.dumps(rollout(answer="x" * 30_000)))
    cut, full = (do("show_example", "--input", "long.jsonl", *more)[1] for more in ((), ("--whole",)))
    assert cut.count("x") < 10_000
    assert full.count("x") >= 30_000


def test_show_example_page(do):
    status, out, _ = do("show_example", "--input", "raw.json", "--html", "page.html", "--most", "2")
    assert (status, out) == (0, "2 of 3 trajectories: page.html\n")
    page = Path("page.html").read_text()
    assert "first answer" in page
    assert "third answer" not in page


def test_overview_and_report_are_written_beside_the_input(do):
    assert do("overview", "--input", "raw.json")[1] == f"overview: {Path.cwd() / 'raw_overview.png'}\n"
    assert do("quality_report", "--input", "raw.json")[1].endswith("raw_quality_report.html\n")
    assert files() == ["raw.json", "raw_overview.png", "raw_quality_report.html"]
    assert Path("raw_overview.png").read_bytes().startswith(b"\x89PNG")
    assert Path("raw_quality_report.html").read_text().startswith("<!")


def test_the_overview_elsewhere(do):
    assert do("overview", "--input", "raw.json", "--output", "a/o.png")[1] == "overview: a/o.png\n"
    assert Path("a/o.png").read_bytes().startswith(b"\x89PNG")


def test_compare(do):
    assert do("filter_data", "--input", "raw.json", "--output", "good.jsonl", "--min-reward", "0.5")[0] == 0
    status, out, _ = do("compare", "--input", "raw.json", "good.jsonl", "--output", "both.png")
    assert status == 0
    head, _, first, second, *_, message = out.splitlines()
    assert len(head) == len(first) == len(second)
    assert "raw.json" in first
    assert "good.jsonl" in second
    assert message == "comparison: both.png"
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")


def test_compare_writes_the_flips_of_each_problem(do):
    changed = [{**row, "success": row["instance_id"] == "p1", "reward": 1.0} for row in ROWS]
    Path("changed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    status, out, _ = do("compare", "--input", "raw.json", "changed.jsonl", "--flips", "flips.jsonl")
    assert status == 0
    assert "changed.jsonl against raw.json, paired by problem, on 2 problems judged in both:" in out
    assert [row["flip"] for row in lines_of(Path("flips.jsonl"))] == ["unsolved", "solved"]


def test_curves(do):
    status, out, _ = do("curves", "--input", "raw.json")
    assert status == 0
    assert Path("raw_sampling_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "pass@k" in out
    passing, by_reward = json.loads(do("curves", "--input", "raw.json", "--json")[1])
    assert [point["problems"] for point in passing["points"]] == [2, 1]
    assert by_reward["name"] == "best of k by reward"


def test_health(do):
    cut = {**rollout("p2", 0, 0.0, answer=""), "finish_reason": "length"}
    Path("cut.jsonl").write_bytes(orjson.dumps(cut))
    status, out, _ = do("health", "--input", "raw.json", "cut.jsonl")
    assert status == 0
    assert out.startswith("health: 2 findings in 4 rollouts\n")
    assert "hollow_turns: 1 of 4 rollouts" in out
    report = json.loads(do("health", "--input", "cut.jsonl", "--json")[1])
    assert [finding["name"] for finding in report["findings"]] == ["hollow_turns", "answers_cut"]


def test_compare_of_files_with_one_name_shows_their_paths(do):
    Path("b").mkdir()
    Path("b/raw.json").write_bytes(Path("raw.json").read_bytes())
    _, out, _ = do("compare", "--input", "raw.json", "b/raw.json")
    assert "b/raw.json" in out
    assert Path("compare.png").exists()


@pytest.fixture
def run_directory(workdir):
    with opened(workdir / "policy", rows=2) as run:
        append(run.journal, "p0", 0, completion="yes")
        append(run.journal, "p1", 0, error=0.5, completion="no")
    return workdir / "policy"


def test_commands_on_a_run(do, run_directory):
    name = str(run_directory)
    assert json.loads(do("analyze", "--input", name, "--json")[1])["rollouts"] == 2
    assert "yes" in do("show_example", "--input", name)[1]
    assert do("overview", "--input", name)[1] == f"overview: {run_directory / 'overview.png'}\n"
    assert do("export_sft", "--input", name, "--output", "sft.jsonl", "--successful-only")[0] == 0
    [row] = lines_of(Path("sft.jsonl"))
    assert row["metadata"]["model"] == "policy"


def test_bad_rows_are_reported_and_kept(do):
    Path("in.jsonl").write_bytes(orjson.dumps(ROWS[0]) + b'\n{"instance_id": 1.5}\nnonsense\n')
    status, out, err = do("filter_data", "--input", "in.jsonl", "--output", "out.jsonl.gz", "--max_bad_share", "0.7")
    assert status == 0
    assert out.startswith("kept 1 of 1 rollouts")
    assert err.splitlines()[0] == "2 rows could not be used; they are in out.quarantine.jsonl"
    assert err.splitlines()[1].startswith("  in.jsonl: row 2: instance_id: expected text, found 1.5")
    assert [(row["source"], row["row"], row["field"]) for row in lines_of(Path("out.quarantine.jsonl"))] == [
        ("in.jsonl", 2, "instance_id"),
        ("in.jsonl", 3, None),
    ]
    _, out, err = do("analyze", "--input", "in.jsonl", "--json", "--max_bad_share", "0.7")
    assert json.loads(out)["quarantined"] == 2
    assert err.splitlines()[0] == "2 rows could not be used"
    Path("in.jsonl").write_bytes(orjson.dumps(ROWS[0]))
    assert do("filter_data", "--input", "in.jsonl", "--output", "out.jsonl.gz")[2] == ""
    assert not Path("out.quarantine.jsonl").exists(), "an earlier call's"


NON_NUMBERS = "1 records held NaN or Infinity, read as null, or lone surrogates, read as ?: neither is JSON in UTF-8\n"


def test_non_number_is_read_as_null_and_reported(do):
    Path("in.jsonl").write_text('{"instance_id": "a", "reward": NaN}\n')
    status, _, err = do("filter_data", "--input", "in.jsonl", "--output", "out.jsonl")
    assert (status, err) == (0, NON_NUMBERS)
    assert lines_of(Path("out.jsonl")) == [{"instance_id": "a", "reward": None}]


@pytest.mark.parametrize(
    "argv",
    [
        ("analyze",),
        ("filter_data", "--output", "o.json"),
        ("export_sft", "--output", "o.jsonl"),
        ("overview",),
        ("quality_report",),
        ("curves",),
        ("health",),
        ("show_example",),
    ],
)
def test_an_empty_file_is_an_error(do, argv):
    Path("none.jsonl").write_bytes(b"")
    Path("o.jsonl").write_bytes(b"an earlier one")
    message = do(*argv, "--input", "none.jsonl")
    assert message == (1, "", "curate: none.jsonl holds no rows: nothing is done\n")
    assert Path("o.jsonl").read_bytes() == b"an earlier one"


def test_more_bad_rows_than_are_allowed_are_an_error(do):
    Path("in.jsonl").write_bytes(orjson.dumps(ROWS[0]) + b"\nnonsense\n")
    Path("o.jsonl").write_bytes(b"an earlier one")
    Path("o.quarantine.jsonl").write_bytes(b"an earlier one")
    status, _, err = do("export_sft", "--input", "in.jsonl", "--output", "o.jsonl")
    assert status == 1
    assert err.startswith(
        "curate: 1 of 2 rows of in.jsonl cannot be used, more than the share of 0.1 allowed (--max_bad_share)"
    )
    assert "in.jsonl: row 2: not valid JSON" in err
    assert (Path("o.jsonl").read_bytes(), Path("o.quarantine.jsonl").read_bytes()) == (b"an earlier one",) * 2


SFT = ("export_sft", "--input", "raw.json", "--output")


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (("analyse", "--input", "raw.json"), 2, "'analyse' is not a command: did you mean analyze?"),
        (("zzz",), 2, "'zzz' is not a command: there are analyze, filter_data, export_sft, export_trajectory"),
        (("analyze", "--input", "nowhere.json"), 1, "nowhere.json: there is no such file or folder"),
        (("analyze", "--input", "*.parquet"), 1, "*.parquet: no file matches this pattern"),
        (("analyze",), 2, "--input: required"),
        (("analyze", "--inptu", "raw.json"), 2, "--inptu: unknown flag; did you mean --input?"),
        ((*SFT, "raw.json"), 2, "--output raw.json is an input: give another name"),
        ((*SFT, "./raw.json"), 2, "--output ./raw.json is an input"),
        ((*SFT, "out.txt"), 2, "cannot write rows to out.txt"),
        ((*SFT, "out.json"), 1, "give a path that ends in .jsonl"),
        ((*SFT, "out.jsonl", "--format", "promt_completion"), 2, "did you mean prompt_completion?"),
        ((*SFT, "out.jsonl", "--validation-share", "1"), 2, "1 is too large: must be less than 1"),
        ((*SFT, "out.jsonl", "--where", "reward >"), 2, "--where 'reward >' is no SQL expression"),
        ((*SFT, "out.jsonl", "--successful-only", "--unsuccessful-only"), 2, "together keep nothing"),
        (("show_example", "--input", "raw.json", "--index", "3"), 1, "--index 3: there are 3 rollouts, 0 to 2"),
        (("show_example", "--input", "raw.json", "--index", "-4"), 1, "--index -4: there are 3 rollouts, 0 to 2"),
        (("show_example", "--input", "raw.json", "--instance_id", "x"), 1, "none of the 3 rollouts of raw.json"),
        (("show_example", "--input", "raw.json", "--html", "raw.json"), 2, "--html raw.json is an input"),
        (("overview", "--input", "raw.json", "--output", "raw.json"), 2, "--output raw.json is an input"),
        (("compare", "--input", "raw.json"), 2, "--input: give two or more to compare"),
        (("compare", "--input", "a", "b", "--flips", "compare.png"), 2, "is the picture, too: give another name"),
        (("filter_data", "--input", "raw.json", "raw.json", "--output", "o.json"), 1, "raw.json is given twice"),
        (("filter_data", "--input", "raw.json", "--output", "raw.json/o.json"), 1, "raw.json"),
        (("overview", "--input", "raw.json", "--output", "."), 2, "--output . is a folder: name a file in it"),
        (("compare", "--input", "raw.json", "raw.json", "--output", ""), 2, "is a folder: name a file in it"),
        (("show_example", "--input", "raw.json", "--html", "/tmp"), 2, "--html /tmp is a folder"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(do, argv, status, message):
    before = Path("raw.json").read_bytes()
    actual, out, err = do(*argv)
    assert (actual, out) == (status, "")
    assert message in err
    assert err.count("\n") == 1
    assert files() == ["raw.json"]
    assert Path("raw.json").read_bytes() == before


def test_all_rows_bad_is_an_error(do):
    Path("in.jsonl").write_bytes(b"{}\n{}\n")
    message = do("show_example", "--input", "in.jsonl", "--max_bad_share", "1")[2]
    assert message.startswith("curate: 2 of 2 rows of in.jsonl cannot be used, so none is left")


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("kept.jsonl", "kept.jsonl"),
        ("kept.dropped.jsonl", "kept.jsonl"),
        ("kept.dropped.jsonl", "kept.json"),
        ("kept.quarantine.jsonl", "kept.jsonl"),
        ("kept.validation.jsonl", "kept.jsonl"),
        ("kept.dropped.json.gz", "kept.json.gz"),
    ],
)
def test_no_input_is_overwritten_by_what_goes_beside_the_output(do, name, output):
    Path("data").mkdir()
    content = gzip.compress(orjson.dumps(ROWS)) if name.endswith(".gz") else orjson.dumps(ROWS[0]) + b"\n"
    Path("data", name).write_bytes(content)
    Path("link").symlink_to("data")
    for value in (f"data/{name}", f"link/{name}"):
        status, _, err = do("filter_data", "--input", value, "--output", f"data/{output}")
        assert status in (1, 2)
        assert "is an input" in err
        assert [path.name for path in Path("data").iterdir()] == [name]
        assert Path("data", name).read_bytes() == content


def test_output_inside_an_input_folder_is_refused(do):
    Path("data").mkdir()
    Path("raw.json").rename("data/raw.json")
    argv = ("filter_data", "--input", "data", "--output", "data/kept.json", "--min-reward", "0.5")
    assert do(*argv)[1].startswith("kept 2 of 3")
    status, _, err = do(*argv)
    assert status == 1
    assert err == (
        "curate: data/kept.json is an input, and would be overwritten: give another name than data/kept.json\n"
    )


def test_the_flow_does_not_overwrite_its_input():
    Path("rollouts.jsonl").write_bytes(orjson.dumps(ROWS[0]))
    with pytest.raises(InputError, match=r"rollouts\.jsonl is an input, and would be overwritten"):
        write_filtered(Curate(input="rollouts.jsonl", output_dir="."))
    assert lines_of(Path("rollouts.jsonl")) == ROWS[:1]


SINGLE = [
    {"instance_id": "p", "sample_id": number, "prompt": "q", "completion": "a", "reward": 1.0, "success": True}
    for number in range(2)
]


def test_one_of_several_exports_may_have_nothing():
    Path("raw.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in SINGLE))
    parameters = Curate(input="raw.jsonl", output_dir="out", export=["sft", "preferences"])
    write_filtered(parameters)
    assert [write_export(parameters, kind).kept for kind in parameters.export] == [2, 0]
    with pytest.raises(InputError, match=r"no rollout can be written to out/preferences\.jsonl"):
        write_export(Curate(input="raw.jsonl", output_dir="out", export=["preferences"]), "preferences")


@pytest.mark.parametrize("of_each", [{"completion": " "}, {"finish_reason": "length"}, {"train": False}])
def test_the_flow_writes_nothing_where_nothing_can_be_trained_on(of_each):
    Path("raw.jsonl").write_bytes(b"".join(orjson.dumps(row | of_each) + b"\n" for row in SINGLE))
    Path("out").mkdir()
    Path("out/rollouts.jsonl").write_text("before\n")
    with pytest.raises(InputError, match="which is left as it was: "):
        write_filtered(Curate(input="raw.jsonl", output_dir="out"))
    assert Path("out/rollouts.jsonl").read_text() == "before\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_write_error_is_one_line(do, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number), "out.json")

    monkeypatch.setattr(commands, "filter_corpus", refuse)
    status, _, err = do("filter_data", "--input", "raw.json", "--output", "out.json")
    assert (status, err) == (
        1,
        f"curate: out.json: {os.strerror(number)}: fix that, or write elsewhere\n",
    )


def test_other_errors_of_the_system_are_bugs(do, monkeypatch):
    def fail(*_):
        raise OSError(errno.EBADF, "bad")

    monkeypatch.setattr(commands, "filter_corpus", fail)
    with pytest.raises(OSError, match="bad"):
        do("filter_data", "--input", "raw.json", "--output", "out.json")


def test_a_torn_write_leaves_no_quarantine(do, monkeypatch):
    Path("in.jsonl").write_bytes(b"{}\n")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(commands, "filter_corpus", refuse)
    assert do("filter_data", "--input", "in.jsonl", "--output", "out.json")[0] == 1
    assert files() == ["in.jsonl", "raw.json"]


def test_parameters_of_the_flow():
    parameters = Curate(input="raw.json", min_reward=0.5, export=["sft", "preferences"])
    assert (parameters.input, parameters.output_dir, parameters.split) == (["raw.json"], "curated", None)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Curate(input=["raw.json"], min_rewards=0.5)
    with pytest.raises(ValidationError):
        Curate(input=[])
    with pytest.raises(ValidationError, match="frozen"):
        FilterData(input=["a"], output="b.json").output = "c.json"


def test_help_lists_every_command_and_takes_no_time():
    before = os.times()
    done = curate("--help", check=True)
    after = os.times()
    for name in [*COMMANDS, "run"]:
        assert f"\n  {name} " in done.stdout
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2.0


def test_no_command_lists_them_and_fails(do):
    status, out, err = do()
    assert (status, err) == (2, "")
    assert "\n  export_preferences " in out


def test_help_of_a_command(do):
    status, out, err = do("filter-data", "--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: curate filter_data --input PATH --output FILE [flags]\n")
    assert "\n  --where SQL " in out
    assert "\n`success` is as recorded" in do("analyze", "--help")[1], "not indented"


LIGHT = """
import runpy, sys
for line in sys.argv[1:]:
    sys.argv = ["curate", *line.split()]
    try:
        runpy.run_module("flows.curate", run_name="__main__")
    except SystemExit as stop:
        heavy = {"prefect", "torch", "transformers", "datasets", "trl"} & set(sys.modules)
        assert not stop.code and not heavy, (line, stop.code, heavy)
"""


def test_quick_commands_import_nothing_heavy():
    lines = [
        "analyze --input raw.json",
        "filter_data --input raw.json --output o.json --near_duplicates 0.8",
        "export_sft --input raw.json --output o.jsonl",
        "export_trajectory --input raw.json --output t.jsonl",
        "export_preferences --input raw.json --output p.jsonl",
        "show_example --input raw.json",
        "show_example --input raw.json --html page.html",
        "overview --input raw.json",
        "compare --input raw.json o.json",
        "quality_report --input raw.json",
        "curves --input raw.json",
        "health --input raw.json",
    ]
    command = [sys.executable, "-c", LIGHT, *lines]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("argv", ["analyze --input raw.json --json", "show_example --input long.jsonl --whole"])
def test_closed_pipe_ends_the_command_quietly(argv):
    """As `| head` does: the pipe is closed before or while something is written."""
    Path("long.jsonl").write_bytes(orjson.dumps(rollout(answer="line\n" * 20_000)))
    shell = f"{sys.executable} -m flows.curate {argv} | true"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stderr == ""


def test_mistakes_of_the_flow_are_reported_before_prefect_is_imported():
    done = curate("run", "--input", "raw.json", "--best_k", "0")
    assert (done.returncode, done.stderr) == (2, "curate run: --best_k: 0 is too small: must be at least 1\n")


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_rollouts_of_other_producers_are_exported(do, path):
    status, printed, errors = do("export_sft", "--input", str(path), "--output", "out.jsonl")
    assert (status, errors) == (0, "")
    for row in lines_of(Path("out.jsonl")):
        assert row["metadata"]["instance_id"]
        assert row["messages"][-1]["role"] == "assistant"
    assert "used 0 of" not in printed


def test_fields_of_rows_of_no_known_form(do):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    Path("odd.jsonl").write_text(json.dumps({"task": "p", "turns": turns, "points": 0.5}))
    status, _, errors = do("export_sft", "--input", "odd.jsonl", "--output", "out.jsonl")
    assert status == 1
    assert (
        "the row has task, turns, points: name one with --id_field, the messages with --messages_field, the re"
        in errors
    )
    named = ["--id_field", "task", "--messages_field", "turns", "--reward_field", "points"]
    assert do("export_sft", "--input", "odd.jsonl", "--output", "out.jsonl", *named)[0] == 0
    (row,) = lines_of(Path("out.jsonl"))
    assert (row["metadata"]["instance_id"], row["metadata"]["reward"]) == ("p", 0.5)
    assert row["messages"] == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
