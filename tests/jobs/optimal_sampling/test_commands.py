import json

import pytest

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.commands import analyze_diagnostics, parse
from rollmill.jobs.optimal_sampling.parameters import AnalyzeDiagnostics, OptimalSampling


def parse_flags(*argv):
    return parse(argv, description="", examples="")


@pytest.mark.parametrize("name", ["analyze_diagnostics", "analyze-diagnostics"])
@pytest.mark.parametrize(
    ("options", "files", "output"),
    [
        (("a", "b"), ["a", "b"], "analysis.png"),
        (("a", "--output", "x.png", "b"), ["a", "b"], "x.png"),
        (("--files", "a", "b"), ["a", "b"], "analysis.png"),
        (("--output=x.png", "a"), ["a"], "x.png"),
    ],
)
def test_positional_file_names_are_accepted(name, options, files, output):
    result = parse_flags(name, *options)
    assert isinstance(result, AnalyzeDiagnostics)
    assert (result.files, result.output) == (files, output)


def test_other_commands_are_sampling():
    result = parse_flags("--model_theta", "m", "--dataset", "d", "--output", "o.jsonl")
    assert isinstance(result, OptimalSampling)


@pytest.mark.parametrize(
    ("options", "message"),
    [((), "--files: required"), (("a", "--output", "x.pdf"), "ends in .png"), (("a", "--x"), "--x")],
)
def test_mistakes_are_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        parse_flags("analyze_diagnostics", *options)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("optimal_sampling analyze_diagnostics: ")
    assert message in line


def row(method, alpha, **more):
    lists = {
        "alpha": alpha,
        "kl_theta": [0.1] * len(alpha),
        "kl_t": [0.2] * len(alpha),
        "ess_ratio": [1.0] * len(alpha),
    }
    means = {f"{name}_mean": sum(values) / len(values) for name, values in lists.items()}
    return {"sample_idx": 0, **means, "kl_gap_mean": 0.1, "tokens": len(alpha), "alpha_method": method, **lists, **more}


def test_table_and_plot_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, alpha in (("fixed", [0.5, 0.5]), ("entropy", [0.25, 0.75, 0.5])):
        (tmp_path / f"{name}.diagnostics.jsonl").write_text(json.dumps(row(name, alpha)) + "\n")
    analyze_diagnostics(parse_flags("analyze_diagnostics", "fixed.diagnostics.jsonl", "entropy.diagnostics.jsonl"))
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[2] == ["fixed", "fixed", "1", "2", "0.5", "0", "0.5", "0.5", "0.1", "0.2", "0.1", "1"]
    assert shown[3] == ["entropy", "entropy", "1", "3", "0.5", "0.2041", "0.25", "0.75", "0.1", "0.2", "0.1", "1"]
    assert (tmp_path / "analysis.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "holds no samples"), ('{"a": 1}\n', "line 1 holds no diagnostics"), ("{\n", "line 1: not valid JSON")],
)
def test_files_without_diagnostics_are_refused(tmp_path, text, message):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        analyze_diagnostics(parse_flags("analyze_diagnostics", str(tmp_path / "x.jsonl")))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        analyze_diagnostics(parse_flags("analyze_diagnostics", str(tmp_path / "nowhere.jsonl")))
