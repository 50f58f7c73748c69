"""Each example in Python, run as a user runs it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.exports.sample_corpus import lines_of
from tests.flows.conftest import MACHINE, ROOT
from tests.jobs.training.tiny_models import CHATML, make_base
from tests.services.running import Service

FOLDER = ROOT / "examples/python"
EXAMPLES = sorted(FOLDER.glob("*.py"))
PROBLEMS = ROOT / "examples/performance_problems"


def run_example(
    name: str, *arguments: str, folder: Path, environment: Mapping[str, str] = os.environ, timeout: float = 120
) -> str:
    """Run an example in a folder and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments], cwd=folder, env={**environment, **MACHINE},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of the rows of Markdown tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    source = path.read_text()
    assert f"python examples/python/{path.name}" in (ast.get_docstring(ast.parse(source)) or "")
    assert 25 <= len(source.splitlines()) <= 75


def test_readme_lists_every_example() -> None:
    files = {path.name for path in (*EXAMPLES, *(ROOT / "examples").glob("*.sh"))}
    listed = re.findall(
        r"^\| \[`(?:python/)?(\w+\.(?:py|sh))`\]", (ROOT / "examples/README.md").read_text(), re.MULTILINE
    )
    assert set(listed) == files
    assert len(listed) == len(files)


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory, prefect_environment: dict[str, str]) -> tuple[Path, str]:
    """Run the example of a verifier; return its folder and its output."""
    folder = tmp_path_factory.mktemp("verified")
    return folder, run_example("own_verifier.py", folder=folder, environment=prefect_environment)


def judge(row: Mapping[str, Any]) -> float:
    """Return the reward that the example's docstring promises for a line of its journal."""
    answers = {"sum": '{"answer": 8}', "product": '{"answer": 9}', "power": '{"answer": 81}'}
    if not row["completion"].startswith("{"):
        return 0.0
    return 1.0 if row["completion"] == answers[row["instance_id"]] else 0.2


@pytest.mark.slow
def test_own_verifier_scores_a_run(verified: tuple[Path, str]) -> None:
    folder, output = verified
    run = folder / "example_runs/own_verifier/scripted"
    journal = lines_of(run / "rollouts/0001.jsonl")
    assert [row["reward"] for row in journal] == list(map(judge, journal))
    assert {row["verdict"]["verifier"].split("@")[0] for row in journal} == {"json_answer"}
    for problem in ("sum", "product", "power"):
        rows = sorted((row for row in journal if row["instance_id"] == problem), key=lambda row: row["sample_id"])
        rewards = list(map(judge, rows))
        assert len(rewards) == 8
        assert f"{problem}: rewards {rewards}, {rewards.count(1.0)} accepted\n" in output
    kept = lines_of(run / "sft.jsonl")
    assert [row["messages"][-1]["content"] for row in kept] == ['{"answer": 8}', '{"answer": 9}']
    assert output.endswith("2 rows in example_runs/own_verifier/scripted/sft.jsonl\n")


@pytest.mark.slow
def test_journal_is_read_with_polars(verified: tuple[Path, str]) -> None:
    folder, _ = verified
    output = run_example("journal_polars.py", folder=folder)
    journal = lines_of(folder / "example_runs/own_verifier/scripted/rollouts/0001.jsonl")
    cells = table_rows(output)
    for problem in ("sum", "product", "power"):
        rows = [row for row in journal if row["instance_id"] == problem]
        rewards = list(map(judge, rows))
        [cells_of] = (row for row in cells if row[0] == problem)
        assert cells_of[1] == "8"
        assert float(cells_of[2]) == rewards.count(1.0) / 8
        assert float(cells_of[3]) == pytest.approx(statistics.mean(rewards))
        assert int(cells_of[4]) == len({row["completion"] for row in rows})
    for success in (False, True):
        lengths = [row["usage"]["completion_tokens"] for row in journal if row["success"] is success]
        [cells_of] = (row for row in cells if row[0] == str(success).lower())
        assert int(cells_of[1]) == len(lengths)
        assert float(cells_of[2]) == pytest.approx(statistics.mean(lengths), abs=1e-6)
    texts = [line for line in output.splitlines() if ": '" in line]
    wrong = {f"{row['instance_id']}: {row['completion']!r}" for row in journal if not row["success"]}
    assert len(set(texts)) == 3
    assert set(texts) <= wrong


@pytest.mark.slow
def test_own_environment_is_played(tmp_path: Path, prefect_environment: dict[str, str]) -> None:
    output = run_example("own_environment.py", folder=tmp_path, environment=prefect_environment)
    # 50 is found at once and 60 by bisection; for 25, three guesses are not enough.
    solved = ["n50 0 50"] * 2 + ["n60 0 50", "n60 1 75", "n60 2 60"] * 2
    assert output.splitlines() == ["6 episodes: 4 successful, 0 failed on the way; 8 training rows", *solved]
    journal = lines_of(tmp_path / "example_runs/own_environment/rollouts/0001.jsonl")
    guesses = [[turn["info"]["guess"] for turn in row["turns"]] for row in journal if row["instance_id"] == "n25"]
    assert guesses == [[50, 20, 30]] * 2


def kl(q: Any, p: Any) -> float:
    return float((q * np.log(q / p)).sum())


def test_q_star_is_as_far_from_both_distributions() -> None:
    output = run_example("optimal_sampling.py", folder=ROOT)
    theta, t = np.array([0.70, 0.15, 0.10, 0.05]), np.array([0.10, 0.80, 0.05, 0.05])
    lines = [line for line in output.splitlines() if line.startswith("q, ")]
    assert len(lines) == 5
    for line in lines:
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", line)]
        q, (alpha, from_theta, from_t) = np.array(numbers[:4]), numbers[4:]
        mixture = theta**alpha * t ** (1 - alpha)
        assert q == pytest.approx(mixture / mixture.sum(), abs=2e-3)
        assert (kl(q, theta), kl(q, t)) == pytest.approx((from_theta, from_t), abs=5e-3)
        if "kl_symmetry" in line and "reverse" not in line:
            assert from_theta == from_t


@pytest.mark.slow
def test_text_is_sampled_from_q_star(tmp_path: Path) -> None:
    make_base(tmp_path / "base", CHATML)
    output = run_example("optimal_sampling.py", str(tmp_path / "base"), folder=tmp_path)
    tokens, *weights = re.search(r"(\d+) tokens, alpha (\S+) to (\S+), mean (\S+);", output).groups()  # type: ignore[union-attr]
    least, most, mean = map(float, weights)
    assert 1 <= int(tokens) <= 16
    assert 0 < least <= mean <= most < 1
    from_theta, from_t = re.search(r"KL\(q\|\|theta\) (\S+), mean KL\(q\|\|t\) (\S+)\n", output).groups()  # type: ignore[union-attr]
    assert from_theta == from_t


def write_problems(path: Path, words: str, count: int) -> None:
    path.write_text("".join(json.dumps({"prompt": f"{words} {n}", "answer": 7}) + "\n" for n in range(count)))


@pytest.mark.slow
def test_improve_round_prints_what_the_loop_wrote(tmp_path: Path, stand_in: dict[str, str]) -> None:
    for name, count in (("few_shot", 2), ("train", 12), ("held_out", 20)):
        write_problems(tmp_path / f"{name}.jsonl", name, count)
    make_base(tmp_path / "base", CHATML)
    vllm = tmp_path / "vllm"  # the base guesses a digit, what was trained knows the answer
    scripts = (
        """--script '{"completion": "<answer>{digit}</answer>"}' --learned '{"completion": "<answer>7</answer>"}'"""
    )
    vllm.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@" {scripts}\n')
    vllm.chmod(0o755)
    environment = stand_in | {"ROLLMILL_VLLM_PYTHON": str(vllm)}
    output = run_example("improve_round.py", "base", ".", folder=tmp_path, environment=environment, timeout=400)
    rounds = json.loads((tmp_path / "example_runs/improve_round/rounds.json").read_text())
    [played] = rounds["rounds"]
    assert 0 < played["right"] < played["rollouts"] == 12 * 4
    assert played["rows"] > 0
    assert output.splitlines() == [
        f"base: {rounds['base_accuracy']['mean']:.1%} of 20 held-out problems",
        f"base with examples in the prompt: {rounds['with_examples']['mean']:.1%}",
        f"round 1: {played['right']} of 48 rollouts right, {played['rows']} rows trained on",
        f"trained: 100.0%, a change of {percentages(played['difference'])}",
        "kept; policy: example_runs/improve_round/round_01/adapter/merged",
    ]


def percentages(difference: Mapping[str, float]) -> str:
    mean, low, high = (f"{difference[name]:+.1%}" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed (scripts/debian_packages)")
def test_service_client_runs_commands_and_gets_a_grade(tmp_path: Path) -> None:
    images = ("--images", str(PROBLEMS / "images"))
    data = ("--dataset", str(PROBLEMS / "dataset.json"))
    with Service("sandbox", *images) as sandboxes:
        address = ("--sandbox_server", f"localhost:{sandboxes.port}")
        with Service("evaluation", *data, *address) as evaluations:
            addresses = [f"localhost:{service.port}" for service in (sandboxes, evaluations)]
            output = run_example("service_client.py", *addresses, folder=tmp_path)
            assert evaluations.counts()["done"] == 1
        assert sandboxes.counts()["sandboxes"] == 0
    commit = json.loads((PROBLEMS / "dataset.json").read_text())[0]["commit_id"]
    assert f"$ git log --oneline && ls\n{commit[:7]} start\nREADME.md\n" in output
    assert "spanset/union.py | 21 ++++++++++-----------\n" in output
    assert "Ran 16 tests" in output
    success, reward, pairs = re.search(  # type: ignore[union-attr]
        r"success (\w+), reward (\S+), all checks passed\nspeedup (?:.*),\nfrom (\d+) pairs", output
    ).groups()
    assert (success, int(pairs) >= 5) == ("True", True)
    assert float(reward) >= 0.5  # the solution is more than 20 times as fast
