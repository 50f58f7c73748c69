"""Every command in the documentation: run, or read by the parser that would read it, or run by another test."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from deployments.desk import COMMANDS as DESK
from deployments.registration import Registration
from rollmill.agent_rollouts.commands import parse as parse_agents
from rollmill.command_line import parse_command, parse_command_line
from rollmill.curation.commands import COMMANDS as CURATION
from rollmill.curation.parameters import Curate
from rollmill.episodes.commands import parse as parse_episodes
from rollmill.evaluation.before_after import TrainAndEvaluate
from rollmill.improvement.parameters import Improve
from rollmill.optimal_sampling.commands import parse as parse_sampling
from rollmill.rejection.parameters import RejectSampling
from rollmill.services.evaluation import EvaluationService
from rollmill.services.sandbox import SandboxService
from tests.documentation.pages import PAGES, ROOT, Block, blocks, name
from tests.training.made import make_base

BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = [page for page in PAGES if any(block.runs for block in blocks(page))]
VARIABLE = re.compile(r"[A-Z_]+=.*")

Parse = Callable[[Sequence[str]], BaseModel]


def of(model: type[BaseModel]) -> Parse:
    return lambda argv: parse_command_line(model, argv, prog="", description="", examples="")


def among(models: dict[str, type[BaseModel]]) -> Parse:
    return lambda argv: parse_command(models, argv, prog="", description="", examples="")


PARSERS: dict[str, Parse] = {
    "flows.reject_sampling": of(RejectSampling),
    "flows.train_lora": of(TrainAndEvaluate),
    "flows.improve": of(Improve),
    "flows.curate": among({**CURATION, "run": Curate}),
    "flows.agent_rollouts": lambda argv: parse_agents(argv, description="", examples=""),
    "flows.collect_episodes": lambda argv: parse_episodes(argv, description="", examples=""),
    "flows.optimal_sampling": lambda argv: parse_sampling(argv, description="", examples=""),
    "rollmill.services.sandbox": of(SandboxService),
    "rollmill.services.evaluation": of(EvaluationService),
    "deployments.desk": among(dict(DESK)),
    "deployments.registration": of(Registration),
}
"""As each module reads its command line."""

DASK_WORKER = "dask worker tcp://scheduler:8786 --nthreads 4 --resources GPU=1"
ELSEWHERE = {
    "make setup": ".ci/run",
    "make check": ".ci/run",
    "make test": ".ci/run",
    "make demo": "tests/flows/test_vllm.py",
    "make improve": "tests/flows/test_improve.py",
    "make up": "tests/deployments/test_desk.py",
    "make up 'UP=--gpu_runs 2'": "tests/deployments/test_desk.py",
    "make down": "tests/deployments/test_desk.py",
    "scripts/documentation": "tests/documentation/test_build.py",
    "python -m pytest tests/curation -m 'not slow' -q": ".ci/run",
    "prefect deployment run reject-sampling/reject-sampling-quick": "tests/deployments/test_desk.py",
    "dask scheduler --port 8786": "tests/flows/test_cluster.py",
    f"CUDA_VISIBLE_DEVICES=0 {DASK_WORKER}": "tests/flows/test_cluster.py",
    f"CUDA_VISIBLE_DEVICES=1 {DASK_WORKER}": "tests/flows/test_cluster.py",
    "docker compose --file containers/compose.yaml up --build --detach": "tests/containers/test_files.py",
}
"""Commands that another test runs, and where that is."""


def parsed(command: str) -> tuple[dict[str, str], str, list[str]] | None:
    """Variables, module and arguments of a command that a parser of ours reads; None for others."""
    words = shlex.split(command)
    variables = {}
    while words and VARIABLE.fullmatch(words[0]):
        key, _, value = words.pop(0).partition("=")
        variables[key] = value
    if words[:2] != ["python", "-m"] or words[2] not in PARSERS:
        return None
    return variables, words[2], words[3:]


COMMANDS = [
    pytest.param(page, command, id=f"{name(page)} {command[:60]}")
    for page in PAGES
    for command in dict.fromkeys(one for block in blocks(page) if block.language == "bash" for one in block.commands())
]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_is_one_that_is_understood(
    page: Path, command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = parsed(command)
    if read is None:
        assert command in ELSEWHERE, f"nothing runs {command!r}: run or list it"
        return
    variables, module, arguments = read
    write_files(page, folder)
    monkeypatch.chdir(folder)
    for key in ("MODEL_PATH", "MODEL_NAME", "NUM_ROLLOUT", "MAX_DATA", "TEMPERATURE"):
        monkeypatch.delenv(key, raising=False)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert PARSERS[module](arguments)


def test_what_others_run_is_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = {parameter.values[1] for parameter in COMMANDS}
    for command, place in ELSEWHERE.items():
        assert (ROOT / place).exists(), place
        assert not command.startswith("make ") or command.split()[1] in targets, command
        assert command in said, f"no page says {command!r} any more: leave it out"


def test_the_tutorial_says_what_the_demo_does() -> None:
    script = (ROOT / "examples/demo.sh").read_text().partition("-m flows.reject_sampling")[2]
    demo = shlex.split(script.replace("\\\n", " ").replace('"$@"', ""))
    page = blocks(ROOT / "docs/tutorial.md")
    said = [parsed(command) for block in page if block.language == "bash" for command in block.commands()]
    assert ({}, "flows.reject_sampling", demo) in said


def test_every_shell_block_is_marked_as_such() -> None:
    assert not [(name(block.page), block.language) for block in BLOCKS if block.language in ("sh", "shell", "console")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a page's commands run: the examples that they name are there."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def shell(code: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs it as in an activated environment."""
    environment = environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, text=True, capture_output=True, timeout=900, check=False
    )


def write_files(page: Path, folder: Path) -> None:
    """The files that a page shows."""
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.code)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", RUN, ids=name)
def test_what_a_page_runs_runs_and_leaves_what_it_says(page: Path, folder: Path, stand_in: dict[str, str]) -> None:
    write_files(page, folder)
    model, environment = folder / "models/qwen", dict(stand_in)
    if any("flows.optimal_sampling" in block.code for block in blocks(page) if block.runs):
        make_base(model)
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for block in blocks(page):
        if block.runs:
            done = shell(block.code.replace("/models/qwen", str(model)), folder, environment)
            assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
            missing = [path for path in block.leaves if not (folder / path).exists()]
            assert not missing, f"{block.code}\nhas not left {missing}:\n{done.stdout}"


PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_python_in_pages_runs(page: Path, folder: Path) -> None:
    write_files(page, folder)
    code = "\n\n".join(block.code for block in blocks(page) if block.language == "python")
    (folder / "page.py").write_text(code)
    done = shell("python page.py", folder, dict(os.environ, PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stderr


def test_json_in_pages_is_json() -> None:
    import orjson

    for block in BLOCKS:
        if block.language == "json":
            lines = block.code.splitlines() if (block.title or "").endswith(".jsonl") else [block.code]
            found: list[Any] = [orjson.loads(line) for line in lines]
            assert found, name(block.page)


def test_blocks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        'a\n\n<!-- run: leaves a.txt -->\n```bash\nx \\\n  y  # z\n```\n\n```json title="b.json"\n{}\n```\n'
    )
    assert blocks(page) == [
        Block(page, "bash", None, "x \\\n  y  # z\n", True, ["a.txt"]),
        Block(page, "json", "b.json", "{}\n", False, []),
    ]
    assert list(blocks(page)[0].commands()) == ["x y"]
