"""Every command in the documentation is run by a test, and code blocks have the language of their mark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.documentation.pages import ELSEWHERE, PAGES, ROOT, Block, blocks, commands, is_ours, name, plain
from tests.documentation.reader import World, run_page

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [(name(page), line) for page in PAGES for line in commands(page)]


def test_every_command_is_run() -> None:
    """By the tests of the pages, or by the file that `ELSEWHERE` names."""
    unknown = [(page, line) for page, line in COMMANDS if not is_ours(line) and plain(line) not in ELSEWHERE]
    assert not unknown, "nothing runs these: say in pages.py how they are run"


def test_commands_run_elsewhere_are_documented_and_tested() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documented = {plain(line) for _, line in COMMANDS}
    for command, location in ELSEWHERE.items():
        assert (ROOT / location).exists(), location
        assert not command.startswith("make ") or command.split()[1] in targets, command
        assert command in documented, f"no page says {command!r} any more: leave it out"
        assert not is_ours(command)


def test_first_page_commands_are_on_other_pages() -> None:
    documented = {plain(line) for _, line in COMMANDS}
    assert [line for line in commands(ROOT / "README.md") if plain(line) not in documented] == []


def test_tutorial_has_the_demos_commands() -> None:
    script = (ROOT / "examples/demo.sh").read_text().partition("-m flows.reject_sampling")[2]
    demo = script.replace("\\\n", " ").replace('"$@"', "")
    assert plain(f"python -m flows.reject_sampling {demo}") in map(plain, commands(ROOT / "docs/tutorial.md"))


def test_every_shell_block_is_marked_as_such() -> None:
    assert not [(name(block.page), block.language) for block in BLOCKS if block.language in ("sh", "shell", "console")]


PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_python_in_pages_runs(page: Path, tmp_path: Path) -> None:
    code = "\n\n".join(block.code for block in blocks(page) if block.language == "python")
    (tmp_path / "page.py").write_text(code)
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", "import page"]  # tests/examples runs the examples that pages include
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_json_in_pages_is_json() -> None:
    for block in BLOCKS:
        if block.language == "json":
            lines = block.code.splitlines() if (block.title or "").endswith(".jsonl") else [block.code]
            rows: list[Any] = [orjson.loads(line) for line in lines]
            assert rows, name(block.page)


def test_blocks_and_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        'a\n\n<!-- leaves a.txt -->\n```bash\nx \\\n  y  # z\n\n# v\nw *\n```\n\n```json title="b.json"\n{}\n```\n'
    )
    assert blocks(page) == [
        Block(page, "bash", None, "x \\\n  y  # z\n\n# v\nw *\n", ["a.txt"]),
        Block(page, "json", "b.json", "{}\n", []),
    ]
    assert commands(page) == ["x    y  # z", "w *"]
    assert [plain(line) for line in commands(page)] == ["x y", "w '*'"]


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("python -m flows.curate analyze --input raw.json", True),
        ("MODEL_PATH=/models/qwen MODEL_NAME=qwen python   -m flows.reject_sampling", True),
        ("python -m rollmill.services.sandbox --images there", True),
        ("rollmill curate analyze --input raw.json", True),
        ("MODEL_PATH=/models/qwen MODEL_NAME=qwen rollmill sample  # all of it", True),
        ("rollmill services evaluation --dataset data.json", True),
        ("rollmill", False),
        ("rollmill services", False),
        ("rollmill up", False),
        ("echo rollmill curate", False),
        ("python -m deployments.local up", False),
        ("python -m flows", False),
        ("echo python -m flows.curate", False),
    ],
)
def test_own_commands_are_recognised(line: str, ours: bool) -> None:
    assert is_ours(line) == ours


@pytest.mark.slow
def test_failed_commands_and_missing_files_are_reported(tmp_path: Path) -> None:
    world, page = (
        World(tmp_path, tmp_path, Path(sys.executable), dict(os.environ, PYTHONPATH=str(ROOT))),
        tmp_path / "page.md",
    )
    page.write_text("```bash\npython -m flows.curate analyze --input /models/nothing.json\n```\n")
    with pytest.raises(AssertionError, match=f"curate: {tmp_path}/models/nothing.json: there is no"):
        run_page(page, world)
    page.write_text("<!-- leaves examples a.txt -->\n```bash\nmake setup\n```\n")
    with pytest.raises(AssertionError, match=r"has not left \['a.txt'\]"):
        run_page(page, world)
