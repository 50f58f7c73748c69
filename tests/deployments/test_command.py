"""`rollmill`: every command is the same as the `python -m` of its module."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from deployments.command import COMMANDS
from tests.deployments.commands import ROLLMILL, Call, calls
from tests.flows.conftest import ROOT, journal_lines, script, stop, write_problems
from tests.waiting import wait_until

NAMES = ", ".join(COMMANDS)


def run(*arguments: str, folder: Path = ROOT, command: str | Path = ROLLMILL) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_project_installs_the_command() -> None:
    [point] = entry_points(group="console_scripts", name="rollmill")
    assert point.value == "deployments.command:main"
    assert ROLLMILL.exists(), "make setup installs it"


def test_every_flow_and_service_has_a_command() -> None:
    rooms = ("flows", "rollmill/services")
    files = [path for room in rooms for path in (ROOT / room).glob("*.py") if '"__main__"' in path.read_text()]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    assert len(modules) == 9
    assert modules <= {call.module for call in calls()}


@pytest.mark.parametrize("call", calls(), ids=lambda call: "-".join(call.words))
def test_help_is_that_of_the_module(call: Call, help_texts: dict[str, tuple[str, str]]) -> None:
    by_command, by_module = help_texts[" ".join(call.words)]
    words, own_words = " ".join(call.words), " ".join(call.arguments)
    name = f"rollmill {words.removesuffix(own_words).strip()}".strip()
    assert by_command.startswith(f"usage: rollmill {words} ")
    prog = call.module.removeprefix("flows.") if call.module.startswith("flows.") else f"python -m {call.module}"
    assert by_module.startswith(f"usage: {prog} ")
    renamed = re.sub(rf"^(usage: )?{re.escape(prog)} ", rf"\1{name} ", by_module, flags=re.MULTILINE)
    assert by_command == renamed.replace(f"python -m {call.module}", name)


def test_every_command_is_listed() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (2, "")
    assert re.findall(r"^  (\S+)  ", done.stdout, re.MULTILINE) == list(COMMANDS)
    for arguments in (["--help"], ["-h"], ["help"]):
        listed = run(*arguments)
        assert (listed.returncode, listed.stdout) == (0, done.stdout)
    services = run("services")
    assert services.returncode == 2
    assert re.findall(r"^  (\S+)  ", services.stdout, re.MULTILINE) == ["sandbox", "evaluation"]


def test_version_is_that_of_the_project() -> None:
    assert run("--version").stdout == "rollmill 0.1.0\n"


def test_help_of_a_command() -> None:
    assert run("help", "curate").stdout == run("curate", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sampel"], f"rollmill: 'sampel' is not a command: did you mean sample? The commands are {NAMES}"),
        (["train_lora"], f"rollmill: 'train_lora' is not a command: did you mean train? The commands are {NAMES}"),
        (["\x1b[2Jx"], f"rollmill: '\\\\x1b[2Jx' is not a command: The commands are {NAMES}"),
        (["services", "sandbx"], "rollmill services: 'sandbx' is not a command: did you mean sandbox? The commands are "
                                 "sandbox, evaluation"),
        (["sample", "--modl_path", "m"], "rollmill sample: --modl_path: unknown flag; did you mean --model_path?"),
        (["optimal_sampling", "analyze_diagnostics"],
         "rollmill optimal-sampling analyze_diagnostics: --files: required"),
        (["up", "--port", "x"], "rollmill up: --port: 'x' is not a whole number"),
        (["services", "sandbox", "--port", "x", "--images", "i"],
         "rollmill services sandbox: --port: 'x' is not a whole number"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_with_the_command(arguments: list[str], line: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")


def test_output_and_failure_are_those_of_the_module(tmp_path: Path) -> None:
    rows = [{"instance_id": "p", "sample_id": n, "reward": n / 2, "messages": []} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    arguments = ["curate", "analyze", "--input", "rows.jsonl"]
    by_command = run(*arguments, folder=tmp_path)
    by_module = run("-m", "flows.curate", *arguments[1:], folder=tmp_path, command=sys.executable)
    assert by_command.stdout == by_module.stdout
    assert (by_command.returncode, by_command.stderr) == (0, "")
    failed = run("curate", "analyze", "--input", "nothing.jsonl", folder=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("rollmill curate: nothing.jsonl: ")


def test_output_that_nobody_reads_is_no_error() -> None:
    done = run("-o", "pipefail", "-c", f"{ROLLMILL} completion bash | true", command="bash")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow  # two starts of a flow with Prefect and a model server
def test_run_is_interrupted_and_continued(tmp_path: Path, stand_in: dict[str, str]) -> None:
    write_problems(tmp_path / "problems.jsonl", 6)
    (tmp_path / "mine.py").write_text("def always(problem, completion):\n    return 1.0\n")
    for name in ("flows", "tasks"):  # folders of the user's own, which Prefect's users have
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not this one')\n")
    flags = ["--model_path", "m", "--model_name", "m", "--dataset", "problems.jsonl", "--num_rollout", "2"]
    flags += ["--no_canary", "--concurrency", "1", "--verifier", "mine:always"]
    environment = stand_in | {"PYTHONPATH": str(ROOT / "tests/flows/stand_in")}

    def start(latency_s: float) -> subprocess.Popen[str]:
        command = [str(ROLLMILL), "sample", *flags, *script(latency_s=latency_s)]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    first = start(1.0)
    wait_until(lambda: journal_lines(tmp_path) or first.poll() is not None, timeout=180)
    code, output = stop(first, signal.SIGINT)
    assert (code, output.splitlines()[-1]) == (130, "rollmill sample: stopped: run the same command again to continue")
    before = journal_lines(tmp_path)
    assert 1 <= len(before) < 12
    second = start(0.0)
    _, errors = second.communicate(timeout=180)
    assert second.returncode == 0, errors
    assert len(journal_lines(tmp_path)) == 12
    assert {json.loads(line)["reward"] for line in journal_lines(tmp_path)} == {1.0}
